"""`compile_blocks`: the blocks of a loaded transformer through torch.compile, in place: one graph for all of them.

A change of size compiles again, another prompt does not. What was compiled is kept on disk, so that the next process
only has to read it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sanakit.base.grid import Grid
from sanakit.layers.block import LinearBlock
from sanakit.layers.cross_attention import Memory
from sanakit.transformer import SanaTransformer

CACHE = Path("~/.cache/sanakit/compiled")
"""Where compiled blocks are kept, unless TORCHINDUCTOR_CACHE_DIR says otherwise."""

_TEXT = 2  # the dimension of a memory's keys that counts text tokens
_GRAPHS = 64  # sizes and batches in one process before torch.compile gives up


def why_not() -> str | None:
    """Why nothing can be compiled on this machine; None where it can."""
    _name_cache()
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as problem:  # torch raises several kinds, none of them public
        return f"needs a C++ compiler, and none works here ({type(problem).__name__})"
    return None


def compile_blocks(model: SanaTransformer, backend: str = "inductor") -> None:
    """Compile the blocks of `model`, in place; the first step at a new size takes seconds more.

    backend: of torch.compile.
    """
    _name_cache()
    torch._dynamo.config.recompile_limit = _GRAPHS
    for block in model.blocks:
        assert isinstance(block, LinearBlock)
        block.forward = _any_text(torch.compile(block.forward, dynamic=False, backend=backend))  # type: ignore[method-assign]


def _name_cache() -> None:
    """Before torch's compiler is first imported, which else names a folder that the system may clear."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(CACHE.expanduser()))


def _any_text(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`run`, told that the number of text tokens is free: else every prompt would be compiled for."""

    def forward(
        x: Tensor,
        signal: Tensor,
        memory: Memory,
        mask: Tensor | None,
        grid: Grid,
        angles: Tensor | None = None,
        identity_rows: int = 0,
    ) -> Tensor:
        for part in (memory.key, memory.value):
            torch._dynamo.maybe_mark_dynamic(part, _TEXT)
        if mask is not None:
            torch._dynamo.maybe_mark_dynamic(mask, 1)
        return run(x, signal, memory, mask, grid, angles, identity_rows)

    return forward
