"""Where tensors of the CPU begin: products of matrices sum in an order that depends on it.

MKL and oneDNN take the values before the first boundary of a vector register apart, so that the same numbers at another
address give a result that differs in its last bit. torch allocates at multiples of 64 bytes; what lies in a mapped file
or is a view of something larger need not begin there.
"""

from __future__ import annotations

from itertools import accumulate

from torch import Tensor

ALIGNMENT = 64
"""Bytes: a cache line, the widest vector register, and what torch's own allocator keeps to."""


def aligned(tensor: Tensor) -> Tensor:
    """The tensor itself where it lies as torch would have allocated it, else a copy that does.

    That is: contiguous, and on a CPU beginning at a multiple of `ALIGNMENT`.
    """
    return (
        tensor if is_aligned(tensor) else tensor.detach().contiguous().reshape(-1).clone().view(tensor.shape)
    )


def is_aligned(tensor: Tensor) -> bool:
    """Whether a tensor is contiguous (in every stride, those of single rows included) and begins where it should."""
    if tensor.stride() != _strides(tensor.shape):
        return False
    return tensor.device.type != "cpu" or tensor.data_ptr() % ALIGNMENT == 0


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides that a new tensor of the shape has."""
    below = accumulate((max(size, 1) for size in reversed(shape)), lambda a, b: a * b, initial=1)
    return tuple(reversed(list(below)[: len(shape)]))
