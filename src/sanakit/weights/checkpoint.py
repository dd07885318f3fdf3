"""One file with the weights of one network: of `torch.save` or safetensors, told apart by their bytes, not their names.

Prefixes of wrappers are removed from names (DDP, FSDP, torch.compile, ComfyUI), and one part of a trainer's file is
read: the weights or their moving average.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import Tensor

from sanakit.base.errors import WeightsError
from sanakit.weights.rules import listed
from sanakit.weights.tensor_files import Weights, open_files
from sanakit.weights.torch_file import TorchFile, open_torch_file
from sanakit.weights.zip_records import is_zip

Part = Literal["model", "ema"]

SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")
_PARTS: dict[Part, tuple[str, ...]] = {
    "model": ("state_dict", "model_state_dict", "model", "module"),
    "ema": ("state_dict_ema", "model_ema", "ema"),
}
# The first is followed by every name of the transformer in ComfyUI's files, beside those of other networks.
_COMFY = "model.diffusion_model."
_FRONT = ("module.", "model.diffusion_model.")
_INSIDE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """An opened file. tensors: by the names of the network's authors, read when asked for. notes: what was chosen."""

    path: Path
    tensors: Mapping[str, Tensor] = field(repr=False)
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)
    notes: tuple[str, ...] = ()


def is_checkpoint_name(path: Path) -> bool:
    """Return whether a path is named like a file of weights (in upper case, too) and not like a folder."""
    return path.suffix.lower() in SUFFIXES


def open_checkpoint(path: Path, part: Part | None = None, *, verify: bool = False) -> Checkpoint:
    """Open a file of weights.

    part: which weights of a trainer's file; None for "model" (as the official code does), or "ema" if there is
    nothing else. verify: read all of the file first and compare its checksums.
    Raises WeightsError, one sentence, as `open_torch_file` and `open_files`, and if the part is missing.
    """
    if _is_safetensors(path):
        weights = open_files([path])
        if part == "ema":
            raise WeightsError(f"{path} holds one set of weights and no moving average: leave --weights out")
        names, notes = _plain_names(list(weights), path)
        shapes = {new: weights.entries[old].shape for new, old in names.items()}
        return Checkpoint(path=path, tensors=_Renamed(weights, names), shapes=shapes, notes=notes)
    file = open_torch_file(path)
    checked = () if not verify or file.verify() else (f"{path} has no checksums to compare with.",)
    entries, chosen = _choose(file, part)
    tensors = file.tensors(entries)
    names, notes = _plain_names(list(tensors), path)
    renamed = {new: tensors[old] for new, old in names.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in renamed.items()}
    return Checkpoint(path=path, tensors=renamed, shapes=shapes, notes=(*checked, *chosen, *notes))


def _is_safetensors(path: Path) -> bool:
    """By the first bytes: a length and a brace. The other reader reports unreadable files."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(9)
    except OSError:
        return False
    return (head[8:9] == b"{" or path.suffix.lower() == ".safetensors") and not is_zip(memoryview(head))


def _choose(file: TorchFile, part: Part | None) -> tuple[dict[object, object], tuple[str, ...]]:
    """Return the entries of the requested part, and a note if there was a choice. Raises WeightsError."""
    tree = file.mapping()
    found: dict[Part, str] = {}
    for name, keys in _PARTS.items():
        present = [key for key in keys if isinstance(tree.get(key), dict) and tree[key]]
        if present:
            found[name] = present[0]
    if not found:
        if any(isinstance(value, dict) for value in tree.values()):
            raise WeightsError(f"{file.path} holds no weights: it has {listed([str(key) for key in tree])}")
        if part == "ema":
            raise WeightsError(
                f"{file.path} holds one set of weights and no moving average: leave --weights out"
            )
        return tree, ()
    chosen = part or ("model" if "model" in found else "ema")
    if chosen not in found:
        there = "".join(found.values())
        raise WeightsError(
            f"{file.path} has no {_PARTS[chosen][0]!r}: it has {there} (--weights {''.join(found)})"
        )
    notes: tuple[str, ...] = ()
    if part is None and (chosen == "ema" or len(found) > 1):
        other = "nothing else is there" if chosen == "ema" else f"{found['ema']} is there, too: --weights ema"
        notes = (f"{file.path}: {found[chosen]} is taken; {other}.",)
    return file.mapping(tree[found[chosen]]), notes


def _plain_names(names: list[str], path: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Name without wrappers -> name in the file, and a note on what is left out. Raises WeightsError for doubles."""
    comfy = [name for name in names if name.startswith(_COMFY)]
    notes: tuple[str, ...] = ()
    if comfy and len(comfy) < len(names):
        notes = (f"{path}: {len(names) - len(comfy)} tensors of other networks are left out.",)
    found: dict[str, str] = {}
    for name in comfy or names:
        plain = _plain(name)
        if plain in found:
            raise WeightsError(
                f"{path}: {listed([found[plain]])} and {listed([name])} are the same tensor's names"
            )
        found[plain] = name
    return found, notes


def _plain(name: str) -> str:
    for wrapper in _INSIDE:
        name = name.replace(wrapper, "")
    for front in _FRONT:
        name = name.removeprefix(front)
    return name


class _Renamed(Mapping[str, Tensor]):
    """A mapping under other names."""

    def __init__(self, tensors: Weights, names: Mapping[str, str]) -> None:
        self._tensors, self._names = tensors, dict(names)

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[self._names[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
