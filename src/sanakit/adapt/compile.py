"""`compile_blocks`: the blocks of a loaded transformer through torch.compile: one graph for all of them.

A change of size compiles again, another prompt does not. What was compiled is kept on disk, so that the next process
only has to read it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from sanakit.adapt.runner import Runner
from sanakit.base.errors import OutputError
from sanakit.base.files import ensure_writable_folder, user_path
from sanakit.base.text_states import TextStates
from sanakit.transformer import Backbone, TextKV

CACHE = Path("~/.cache/sanakit/compiled")
"""Where compiled blocks are kept, unless TORCHINDUCTOR_CACHE_DIR says otherwise."""

_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
_DRAFT = "sanakit-compiled-"
_TEXT = 2  # the dimension of keys that counts text tokens
_GRAPHS = 64  # sizes and batches in one process before torch.compile gives up


def why_not() -> str | None:
    """Return why nothing can be compiled on this machine, or None if it can."""
    _name_cache()
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as problem:  # torch raises several kinds, none of them public
        return f"needs a C++ compiler, and none works here ({type(problem).__name__})"
    return None


class CompiledTransformer(Runner):
    """A transformer or a ControlNet with compiled blocks: keys and values of its text have a free number of tokens.

    Otherwise every prompt would be compiled for.
    """

    def precompute_text(self, text: TextStates, single: Tensor | None = None) -> TextKV:
        """As `SanaTransformer`, with the number of text tokens marked as free."""
        text_kv: TextKV = self.part.precompute_text(text, single)
        for kv in text_kv.blocks:
            torch._dynamo.maybe_mark_dynamic(kv.key, _TEXT)
            torch._dynamo.maybe_mark_dynamic(kv.value, _TEXT)
        torch._dynamo.maybe_mark_dynamic(text_kv.mask, 1)
        return text_kv


def compile_blocks(model: Backbone, backend: str = "inductor") -> CompiledTransformer:
    """`model` with its blocks compiled; the first step at a new size takes seconds more.

    backend: of torch.compile.
    """
    _name_cache()
    torch._dynamo.config.recompile_limit = _GRAPHS
    for block in model.blocks:
        block.compile(dynamic=False, backend=backend)
    return CompiledTransformer(model)


def keeps() -> bool:
    """Return whether compiled blocks are kept for the next process: not without a home folder that can be written."""
    _name_cache()
    return _DRAFT not in os.environ[_VARIABLE]


def _name_cache() -> None:
    """Set the folder before torch's compiler is imported, which would name one that the system may clear."""
    if not os.environ.get(_VARIABLE):
        os.environ[_VARIABLE] = str(_cache())


def _cache() -> Path:
    """Return the folder of compiled blocks; if it can't be written, one that is removed with this process."""
    folder = user_path(CACHE)
    try:
        if folder.is_absolute():
            return ensure_writable_folder(folder)
    except OutputError:
        pass
    # A new one: anybody may have written to a folder with a known name under /tmp.
    try:
        made = Path(tempfile.mkdtemp(prefix=_DRAFT))
    except OSError as error:
        raise OutputError(
            f"compiled blocks need a folder that can be written: set {_VARIABLE} ({error.strerror or error})"
        ) from error
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made
