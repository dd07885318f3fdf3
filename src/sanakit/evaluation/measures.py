"""Measures: images against their originals, sets of images against sets, and shares with their uncertainty.

psnr, ssim, edge_sharpness          per image, on pixels in 0..1, against its original
edge_slope                          per image, alone
frechet_distance, kernel_distance   between two sets, from features [n, C] of any network
Share                               hits of n, with an interval
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
_EDGES = 0.02
CONFIDENT = 1.959964
"""Standard errors on each side of a mean that hold 95 % of a normal distribution."""


def psnr(images: Tensor, originals: Tensor) -> Tensor:
    """Return [B] in dB for [B, 3, H, W] twice, in 0..1: -10 log10 of the mean squared error."""
    error = (images.double() - originals.double()).square().flatten(1).mean(1)
    return -10 * torch.log10(error)


def ssim(images: Tensor, originals: Tensor) -> Tensor:
    """Return [B] for [B, 3, H, W] twice, in 0..1: structural similarity (Wang et al. 2004, equation 13).

    An 11 x 11 Gaussian window of sigma 1.5, no padding, the mean over positions and channels.
    """
    x, y = images.double(), originals.double()
    mean_x, mean_y = _blur(x), _blur(y)
    var_x = _blur(x * x) - mean_x * mean_x
    var_y = _blur(y * y) - mean_y * mean_y
    both = _blur(x * y) - mean_x * mean_y
    light = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
    shape = (2 * both + _C2) / (var_x + var_y + _C2)
    return (light * shape).flatten(1).mean(1)


def edge_sharpness(images: Tensor, originals: Tensor) -> Tensor:
    """Return [B] for [B, 3, H, W] twice, in 0..1: slope of the images at the originals' edges over the originals' own.

    Edges are the steepest 2 % of the originals' pixels; 1 is as sharp, less is blurred.
    """
    wanted, found = _slope(originals), _slope(images)  # [B, n]
    steepest = _steepest(wanted).indices
    return found.gather(1, steepest).sum(1) / wanted.gather(1, steepest).sum(1)


def edge_slope(images: Tensor) -> Tensor:
    """Return [B] for [B, 3, H, W] in 0..1: the mean slope of an image's own steepest 2 % of pixels.

    For images without an original, to be compared with the mean of pictures that are known to be sharp.
    """
    return _steepest(_slope(images)).values.mean(1)


def _steepest(slope: Tensor) -> torch.return_types.topk:
    """Return the steepest pixels of each image: values and places [B, k] of slopes [B, n]."""
    return slope.topk(max(1, int(_EDGES * slope.shape[1])), dim=1)


def _slope(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, (H-2)*(W-2)]: length of the gradient by central differences, over all channels."""
    x = x.double()
    across, down = x[..., 1:-1, 2:] - x[..., 1:-1, :-2], x[..., 2:, 1:-1] - x[..., :-2, 1:-1]
    return (across.square() + down.square()).sum(1).sqrt().flatten(1)


def _blur(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C, H-10, W-10] by the Gaussian window, one axis after the other."""
    steps = torch.arange(_WINDOW, dtype=x.dtype, device=x.device) - _WINDOW // 2
    weight = torch.exp(-steps.square() / (2 * _SIGMA**2))
    weight = weight / weight.sum()
    channels = x.shape[1]
    rows = weight.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    cols = weight.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    return F.conv2d(F.conv2d(x, rows, groups=channels), cols, groups=channels)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Return |mean difference|^2 + tr(A + B - 2 (A B)^1/2) of Gaussians fitted to [n, C] and [m, C] (arXiv 1706.08500).

    Raises ValueError for fewer than two rows.
    """
    a, b = _checked(a), _checked(b)
    difference = a.mean(0) - b.mean(0)
    cov_a, cov_b = _covariance(a), _covariance(b)
    root = _root(cov_a)
    # tr (A B)^1/2 = tr (A^1/2 B A^1/2)^1/2, and the latter is symmetric.
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return float(difference.square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross)


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """Return the unbiased squared MMD of [n, C] and [m, C] with the kernel (x y / C + 1)^3 (KID, arXiv 1801.01401).

    It may be below 0.

    Raises ValueError for fewer than two rows.
    """
    a, b = _checked(a), _checked(b)
    inside = [_off_diagonal_mean(_kernel(x, x)) for x in (a, b)]
    return float(inside[0] + inside[1] - 2 * _kernel(a, b).mean())


def _checked(features: Tensor) -> Tensor:
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"a distance needs features [n, C] with n >= 2, not {list(features.shape)}")
    return features.double()


def _covariance(features: Tensor) -> Tensor:
    covariance: Tensor = torch.atleast_2d(torch.cov(features.T))
    return covariance


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = vectors @ torch.diag(values.clamp(min=0).sqrt()) @ vectors.T
    return root


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    kernel: Tensor = (x @ y.T / x.shape[1] + 1) ** 3
    return kernel


def _off_diagonal_mean(matrix: Tensor) -> Tensor:
    n = len(matrix)
    return (matrix.sum() - matrix.diagonal().sum()) / (n * (n - 1))


@dataclass(frozen=True, kw_only=True)
class Share:
    """`hits` of `n`, as a share with a 95 % interval by Wilson (1927), which stays within 0..1 at both ends."""

    hits: int
    n: int

    @property
    def accuracy(self) -> float:
        """hits / n; NaN for n = 0."""
        return self.hits / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high); (0, 1) for n = 0."""
        if not self.n:
            return 0.0, 1.0
        p, z2 = self.accuracy, CONFIDENT**2 / self.n
        middle = (p + z2 / 2) / (1 + z2)
        half = CONFIDENT * math.sqrt(p * (1 - p) / self.n + z2 / (4 * self.n)) / (1 + z2)
        return max(0.0, min(p, middle - half)), min(
            1.0, max(p, middle + half)
        )  # rounding leaves p outside at 0 and 1

    def to_json(self) -> dict[str, float | int | None]:
        """Return accuracy (null without trials), low, high, n."""
        low, high = self.interval
        return {"accuracy": self.accuracy if self.n else None, "low": low, "high": high, "n": self.n}

    def __str__(self) -> str:
        if not self.n:
            return "no trials"
        low, high = self.interval
        return f"{self.accuracy:6.1%}  [{low:.1%}, {high:.1%}]  n={self.n}"
