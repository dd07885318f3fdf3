"""Winograd's convolution (arXiv 1509.09308) on CPUs: a quarter of the products of a 3x3 window, in plain torch.

A tile of 4 x 4 outputs sees 6 x 6 inputs d. With a kernel g (3 x 3) and three fixed matrices it is

    Y = A^T [(G g G^T) * (B^T d B)] A

so a tile takes 36 products of channels where a direct convolution takes 144. Summed over channels, each of the 36
places is a matrix product of its own: tiles by channels in, times channels in by channels out.

The matrices follow from where polynomials are evaluated (Toom and Cook): at 0, 1, -1, 1/2, -2 and infinity. In float32
the result is then off by 1.6e-6 of its deviation, a direct convolution by 0.9e-6; the usual 0, 1, -1, 2, -2 by 2.4e-6.

Letters: B batch, C/D channels in and out, h/w position, T tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.base.chip import this_chip
from sanakit.kernels.linear import Act
from sanakit.kernels.problem import Problem

TAPS, TILE = 3, 4
"""Along a side: of a window, and outputs of a tile."""
SEEN = TILE + TAPS - 1
"""Inputs of a tile along a side."""
POINTS = (0.0, 1.0, -1.0, 0.5, -2.0)
NARROWEST, FEWEST = 256, 1024
"""Channels and positions from which the products saved outweigh three more passes over the maps."""
_BAND = 1 << 16
"""Numbers of a map in a band of tiles: what is made of them stays in a large cache, and the products are not small."""


def unsupported(problem: Problem) -> str | None:
    """Return why this does not run a problem, or None."""
    if problem.device != "cpu":
        return "runs on CPUs only"
    if problem.dtype != torch.float32:
        return "sums float32 only: half precision lacks the digits that it needs"
    if "avx512f" in this_chip().features:
        return "not measured beside the direct convolution of AVX-512, which is twice as fast"
    if problem.fact("taps") not in (TAPS, None):
        return "takes windows of 3x3"
    if (problem.fact("width") or NARROWEST) < NARROWEST:
        return f"pays from {NARROWEST} channels on"
    if (problem.fact("positions") or FEWEST) < FEWEST:
        return f"pays from {FEWEST} positions on"
    return None


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, act: Act = "none") -> Tensor:
    """As the reference in `conv.py`, for windows of 3x3; the result is channels last."""
    height, width = x.shape[2:]
    rows, columns = -(-height // TILE), -(-width // TILE)
    # A rim of one zero, and what the last tiles lack.
    right, below = (1 + TILE * count - size for count, size in ((columns, width), (rows, height)))
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, right, 1, below))
    out = x.new_empty(len(x), TILE * rows, TILE * columns, len(weight))
    for band, tiles in _bands(padded, transformed(weight)):
        if bias is not None:
            tiles += bias
        if act == "silu":
            F.silu(tiles, inplace=True)
        window = out[:, band].unflatten(2, (columns, TILE)).unflatten(1, (-1, TILE))
        window.copy_(tiles.permute(2, 3, 0, 4, 1, 5))
    return out[:, :height, :width].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


@cache
def matrices() -> tuple[Tensor, Tensor, Tensor]:
    """(A^T, G, B^T), float32: [4, 6], [6, 3] and [6, 6].

    G and A evaluate polynomials of 3 and 4 coefficients at six points; interpolation leads back from six values to the
    coefficients of a product. Transposed, the three do a correlation.
    """

    def evaluation(count: int) -> Tensor:
        powers = torch.tensor(POINTS, dtype=torch.float64)[:, None] ** torch.arange(count)
        infinity = F.one_hot(torch.tensor([count - 1]), count)  # the highest coefficient decides there
        return torch.cat([powers, infinity])

    interpolation = torch.linalg.inv(evaluation(SEEN))
    return evaluation(TILE).T.float(), evaluation(TAPS).float(), interpolation.T.float()


def transformed(weight: Tensor) -> Tensor:
    """G g G^T for each pair of channels: [D, C, 3, 3] -> [36, D, C]."""
    kernel = matrices()[1]
    places = weight.contiguous().view(-1, TAPS * TAPS).T
    return (torch.kron(kernel, kernel) @ places).view(-1, *weight.shape[:2])


def _bands(padded: Tensor, kernels: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Convolve whole tiles, a band of them at a time.

    Args:
        padded: [B, 4 rows + 2, 4 columns + 2, C].
        kernels: [36, D, C], of `transformed`.

    Yields:
        (rows of the output, tiles [4, 4, B, rows / 4, columns, D]). The next band overwrites the tiles.
    """
    batch, high, wide, channels = padded.shape
    rows, columns = high // TILE, wide // TILE
    step = min(rows, max(1, _BAND // (batch * columns * channels)))
    memory = _Memory(batch * step * columns, channels, kernels.shape[1], padded)
    of_batch, of_row, of_column, of_channel = padded.stride()
    for first in range(0, rows, step):
        count = min(step, rows - first)
        tiles = padded[:, TILE * first :].as_strided(
            (SEEN, SEEN, batch, count, columns, channels),
            (of_row, of_column, of_batch, TILE * of_row, TILE * of_column, of_channel),
        )
        done = memory.convolve(tiles, kernels)
        yield slice(TILE * first, TILE * (first + count)), done.view(TILE, TILE, batch, count, columns, -1)


class _Memory:
    """What is made of a band's tiles, allocated once: a fresh page costs a CPU more than the arithmetic on it."""

    def __init__(self, most: int, channels: int, channels_out: int, like: Tensor) -> None:
        places = SEEN * SEEN
        self.seen, self.places = like.new_empty(2, places * most * channels)
        self.products = like.new_empty(places * most * channels_out)
        self.done = like.new_empty(TILE * TILE * most * channels_out)

    def convolve(self, tiles: Tensor, kernels: Tensor) -> Tensor:
        """[6, 6, ..., C] -> [16, T D], to be read before the next call."""
        back, _, data = (torch.kron(matrix, matrix) for matrix in matrices())
        count, (places, channels_out, channels) = tiles[0, 0].numel() // tiles.shape[-1], kernels.shape
        seen, placed = (
            memory[: tiles.numel()].view(places, count * channels) for memory in (self.seen, self.places)
        )
        products = self.products[: places * count * channels_out].view(places, count, channels_out)
        done = self.done[: TILE * TILE * count * channels_out].view(TILE * TILE, -1)
        seen.view(tiles.shape).copy_(tiles)
        torch.mm(data, seen, out=placed)
        torch.bmm(placed.view(places, count, channels), kernels.mT, out=products)
        return torch.mm(back, products.view(places, -1), out=done)
