"""Alignment of CPU tensors: matrix products sum in an order that depends on the address of their operands.

MKL and oneDNN treat the values before the first vector-register boundary separately, so the same numbers at another
address give a result that differs in its last bit. torch allocates at multiples of 64 bytes; tensors in a mapped file,
and views of larger tensors, need not begin there.
"""

from __future__ import annotations

from itertools import accumulate

from torch import Tensor

ALIGNMENT = 64
"""Bytes: a cache line, the widest vector register, and what torch's own allocator keeps to."""


def aligned(tensor: Tensor) -> Tensor:
    """Return the tensor if it is contiguous and, on a CPU, begins at a multiple of `ALIGNMENT`, else such a copy."""
    return (
        tensor if is_aligned(tensor) else tensor.detach().contiguous().reshape(-1).clone().view(tensor.shape)
    )


def is_aligned(tensor: Tensor) -> bool:
    """Return whether a tensor is contiguous (in every stride, even of dimensions of size 1) and aligned."""
    if tensor.stride() != _strides(tensor.shape):
        return False
    return tensor.device.type != "cpu" or tensor.data_ptr() % ALIGNMENT == 0


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides that a new tensor of the shape has."""
    below = accumulate((max(size, 1) for size in reversed(shape)), lambda a, b: a * b, initial=1)
    return tuple(reversed(list(below)[: len(shape)]))
