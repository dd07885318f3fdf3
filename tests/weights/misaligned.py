"""Files whose tensors begin at another address modulo 64, with the same content."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from torch import Tensor, nn

from sanakit.base.aligned import ALIGNMENT


def shift(path: Path, offset: int) -> None:
    """Rewrite a safetensors file so that its data begin at `offset` (a multiple of 8) modulo 64."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].rstrip(b" ")
    header += b" " * ((offset - 8 - len(header)) % ALIGNMENT)
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])


def shifted_copy(source: Path, target: Path, offset: int) -> Path:
    """A model folder with all its safetensors files shifted."""
    shutil.copytree(source, target)
    for path in target.rglob("*.safetensors"):
        shift(path, offset)
    return target


def data_offset(path: Path) -> int:
    """Where the data of a safetensors file begin, modulo 64."""
    with path.open("rb") as file:
        return (8 + int.from_bytes(file.read(8), "little")) % ALIGNMENT


def offsets(path: Path) -> dict[str, int]:
    """Name -> where a tensor of a safetensors file begins in the file, modulo 64."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    return {
        name: (8 + length + entry["data_offsets"][0]) % ALIGNMENT
        for name, entry in header.items()
        if name != "__metadata__"
    }


def misplaced(tensor: Tensor, offset: int = 8) -> Tensor:
    """The same numbers, beginning `offset` bytes behind a multiple of 64."""
    size = tensor.numel() * tensor.element_size()
    place = torch.empty(size + 2 * ALIGNMENT, dtype=torch.uint8)
    begin = (offset - place.data_ptr()) % ALIGNMENT
    return place[begin : begin + size].view(tensor.dtype).view(tensor.shape).copy_(tensor)


def unaligned(module: nn.Module) -> list[str]:
    """Names of the parameters and buffers that do not begin at a multiple of 64, or whose strides are not plain."""
    return [
        name
        for name, tensor in module.state_dict(keep_vars=True).items()
        if tensor.data_ptr() % ALIGNMENT or tensor.stride() != torch.empty(tensor.shape).stride()
    ]
