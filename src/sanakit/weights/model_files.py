"""The files that make a model folder, by name: what an export copies from another model, and nothing else.

A name may be a link, as all are in the hub's cache, but its target must belong to the model: otherwise a folder made by
a stranger could put any file of this machine into an export.

`words.txt`, one word per line in lower case, lists the words that a model was trained on. Only models with a small
vocabulary of their own have one: it names known words that the tokenizer splits into pieces.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from sanakit.base.errors import ConfigError, OutputError
from sanakit.base.files import atomic_write
from sanakit.base.folders import copy_file
from sanakit.weights.model_spec import ModelSpec

_SHARD = r"(?:\.\w+)?(?:-\d{5}-of-\d{5})?\.safetensors"
_WEIGHTS = rf"(?:diffusion_pytorch_model|model|int8)(?:{_SHARD}|\.safetensors\.index(?:\.\w+)?\.json)"
_TOKENIZER = re.compile(
    r"tokenizer\.(?:json|model)|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|vocab\.(?:json|txt)"
    r"|merges\.txt|spiece\.model|sentencepiece\.bpe\.model|chat_template\.(?:jinja|json)"
)
_MODEL = re.compile(
    rf"model_index\.json|sanakit\.json|words\.txt|scheduler/scheduler_config\.json|tokenizer/(?:{_TOKENIZER.pattern})"
    rf"|(?:transformer|vae|text_encoder)/(?:config\.json|{_WEIGHTS})|text_encoder/generation_config\.json"
)
_PAPERS = re.compile(r"(?:LICENSE|NOTICE)[^/]*|README\.md")

WORDS_FILE = "words.txt"
_MOST = 2**22  # bytes: half a million words


def is_model_file(name: str) -> bool:
    """Return whether a path inside a model folder is one that sanakit reads or writes; licences and notes are not."""
    return _MODEL.fullmatch(name) is not None


def known_files(folder: Path) -> list[str]:
    """Paths inside a model folder of the files that make the model, and of its licence. Raises ConfigError."""
    found = [path.relative_to(folder).as_posix() for path in [*folder.glob("*"), *folder.glob("*/*")]]
    names = sorted(name for name in found if is_model_file(name) or _PAPERS.fullmatch(name))
    return [name for name in names if check_own(folder / name, folder)]


def tokenizer_files(folder: Path) -> list[Path]:
    """Return the files of a tokenizer, in the order of their names."""
    return sorted(path for path in folder.iterdir() if _TOKENIZER.fullmatch(path.name) and path.is_file())


def copy_known(path: Path, model: Path, target: Path) -> None:
    """Copy a file of a model, whose folder is `model`. Raises ConfigError if it leads out of it, OutputError."""
    check_own(path, model)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        copy_file(path, target)
    except OSError as error:
        raise OutputError(f"can't write {target}: {error.strerror or error}") from error


def check_own(path: Path, model: Path) -> bool:
    """Return whether a name stands for a file. Raises ConfigError if the file is outside the model."""
    real, home = path.resolve(), model.resolve()
    homes = [home]
    if home.parent.name == "snapshots":  # the hub's cache keeps bytes beside its snapshots
        homes.append(home.parent.parent.resolve() / "blobs")
    if not any(real.is_relative_to(place) for place in homes):
        raise ConfigError(f"{path} leads out of the model, to {real}: put a copy of the file in its place")
    return real.is_file()


def read_words(spec: ModelSpec) -> frozenset[str]:
    """Return the words that a model was trained on; empty if its folder does not say, or can't be read."""
    try:
        with (spec.folder / WORDS_FILE).open("rb") as file:
            return frozenset(file.read(_MOST).decode("utf-8", "replace").split())
    except OSError:
        return frozenset()


def write_words(folder: Path, words: Iterable[str]) -> None:
    """Add the file to a model's folder; no words, no file. Raises OutputError."""
    listed = sorted(words)
    if listed:
        atomic_write(folder / WORDS_FILE, ("\n".join(listed) + "\n").encode())
