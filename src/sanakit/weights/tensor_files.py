"""The weight files of a component folder: names, variants (fp16, bf16, ...), shards and their index; opened lazily.

`Weights` is a mapping whose tensors stay in the file until they are asked for (memory-mapped on the CPU).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from sanakit.base.echo import quoted
from sanakit.base.errors import ConfigError, WeightsError
from sanakit.base.memory import raise_shortage
from sanakit.weights.formats.fields import read_json
from sanakit.weights.rules import listed
from sanakit.weights.safetensors import Entry, read_header

DIFFUSERS_STEM = "diffusion_pytorch_model"
TRANSFORMERS_STEM = "model"
STEMS = {"transformer": DIFFUSERS_STEM, "vae": DIFFUSERS_STEM, "text_encoder": TRANSFORMERS_STEM}
"""Folder of a component -> how its weight files are named."""

_WORD = re.compile(r"[A-Za-z0-9_]{1,40}")


class TensorFile:
    """One safetensors file: opened (memory-mapped) when the first tensor is asked for, and kept open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Any = None

    def __getitem__(self, key: str) -> Tensor:
        """Return a tensor in the mapped file. Raises WeightsError."""
        try:
            if self._file is None:
                self._file = safe_open(self.path, framework="pt", device="cpu")
            tensor: Tensor = self._file.get_tensor(key)
        except (SafetensorError, OSError, RuntimeError, ValueError, AttributeError) as error:
            raise_shortage(error, f"reading {self.path}")
            raise WeightsError(
                f"{self.path}: tensor {listed([key])} can't be read: fetch or convert it again"
            ) from error
        return tensor


class Weights(Mapping[str, Tensor]):
    """Tensors of one or several safetensors files by name, each read when it is asked for."""

    def __init__(self, entries: Mapping[str, Entry], homes: Mapping[str, Path]) -> None:
        self.entries = dict(entries)
        self._homes = dict(homes)
        self._open: dict[Path, TensorFile] = {}

    def __getitem__(self, key: str) -> Tensor:
        return self._open.setdefault(self._homes[key], TensorFile(self._homes[key]))[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape, from the headers."""
        return {key: entry.shape for key, entry in self.entries.items()}

    @property
    def bytes(self) -> int:
        """Bytes of all tensors in the files."""
        return sum(entry.end - entry.begin for entry in self.entries.values())


def open_weights(folder: Path, stem: str = DIFFUSERS_STEM, variant: str | None = None) -> Weights:
    """Return the weights in a component's folder: `{stem}[.{variant}].safetensors`, or shards with an index.

    With variant None, the plain file is wanted; a folder that has only one variant gives that one.
    Raises WeightsError for missing, truncated or malformed files, and for an index that disagrees with its shards.
    """
    return open_files(weight_files(folder, stem, variant))


def weight_files(folder: Path, stem: str = DIFFUSERS_STEM, variant: str | None = None) -> list[Path]:
    """Return file, or index and shards (index first). Raises WeightsError when there is none, or no such variant."""
    available = variants((path.name for path in folder.iterdir()) if folder.is_dir() else (), stem)
    if not available:
        raise WeightsError(
            f"{folder} holds no {stem}*.safetensors: the folder is incomplete or of another format"
        )
    if variant is None and None not in available and len(available) == 1:
        variant = next(iter(available))
    if variant not in available:
        wanted = f"variant {variant!r}" if variant else "plain weights"
        names = ", ".join("plain" if name is None else repr(name) for name in sorted(available, key=str))
        raise WeightsError(f"{folder} has no {wanted}: it has {names}")
    first = folder / available[variant]
    return [first, *_shards(first)] if first.suffix == ".json" else [first]


def variants(names: Iterable[str], stem: str = DIFFUSERS_STEM) -> dict[str | None, str]:
    """Variant (None: plain) -> its index or single file, among file names; an index wins, as in diffusers."""
    single = re.compile(re.escape(stem) + r"(?:\.([A-Za-z0-9_]+))?\.safetensors")
    index = re.compile(re.escape(stem) + r"\.safetensors\.index(?:\.([A-Za-z0-9_]+))?\.json")
    ordered = sorted(names)
    found: dict[str | None, str] = {}
    for pattern in (single, index):
        found |= {match[1]: name for name in ordered if (match := pattern.fullmatch(name))}
    return found


def _weight_map(index: Path) -> dict[str, str]:
    """Key -> file name, from an index file."""
    try:
        weight_map = read_json(index).get("weight_map")
    except ConfigError as error:
        raise WeightsError(str(error)) from error
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(f"{index} has no weight_map: fetch it again")
    for name in weight_map.values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise WeightsError(f"{index} names {str(name)[:80]!r}, which isn't a safetensors file beside it")
    return weight_map


def _shards(index: Path) -> list[Path]:
    shards = [index.parent / name for name in sorted(set(_weight_map(index).values()))]
    missing = [path.name for path in shards if not path.is_file()]
    if missing:
        raise WeightsError(
            f"{index.parent} lacks {listed(missing)} of its {len(shards)} shards: fetch them again"
        )
    return shards


def open_files(paths: list[Path]) -> Weights:
    """Open one file, or an index followed by its shards. Raises WeightsError as `open_weights` does."""
    index = _weight_map(paths[0]) if paths[0].suffix == ".json" else None
    entries: dict[str, Entry] = {}
    homes: dict[str, Path] = {}
    for path in paths if index is None else paths[1:]:
        for key, entry in read_header(path).items():
            if key in entries:
                raise WeightsError(
                    f"{listed([key])} lies in both {homes[key].name} and {path.name}: the shards are mixed up"
                )
            entries[key], homes[key] = entry, path
    if index is not None:
        wrong = [key for key in {**index, **entries} if key not in homes or index.get(key) != homes[key].name]
        if wrong:
            raise WeightsError(
                f"{paths[0]} disagrees with its shards about {listed(wrong)}: fetch them again"
            )
    return Weights(entries, homes)


def check_variant(name: str) -> None:
    """Raise WeightsError if the variant can't be part of a file name."""
    if not _WORD.fullmatch(name):
        raise WeightsError(f"a variant is a word such as fp16 or bf16, not {quoted(name)}")


def has_variant(folder: Path, stem: str, variant: str) -> bool:
    """Return whether a component's folder holds weights of the variant."""
    return folder.is_dir() and variant in variants((path.name for path in folder.iterdir()), stem)


def variant_of(folder: Path, stem: str, variant: str | None) -> str | None:
    """Choose the variant to open in a component; None (plain or only weights) if it lacks the requested one."""
    return variant if variant is not None and has_variant(folder, stem, variant) else None


def missing_variant(stems: Mapping[Path, str], variant: str | None, note: Callable[[str], object]) -> None:
    """Note the components that lack a variant. Raises WeightsError if none of them has it."""
    if variant is None:
        return
    check_variant(variant)
    lacking = [folder for folder, stem in stems.items() if not has_variant(folder, stem, variant)]
    if len(lacking) == len(stems):
        places = " and ".join(folder.name for folder in stems)
        root = next(iter(stems)).parent
        raise WeightsError(f"{root} has no variant {variant!r}: neither of {places} holds such weights")
    for folder in lacking:
        note(f"{folder} has no variant {variant!r}: its plain weights are read")
