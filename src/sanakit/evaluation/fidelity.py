"""How close a picture is to its original: PSNR, SSIM and the sharpness of edges, per picture, on pixels in 0..1."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
_EDGES = 0.02


def psnr(pictures: Tensor, originals: Tensor) -> Tensor:
    """[B, 3, H, W] twice, in 0..1 -> [B] in dB: -10 log10 of the mean squared error."""
    error = (pictures.double() - originals.double()).square().flatten(1).mean(1)
    return -10 * torch.log10(error)


def ssim(pictures: Tensor, originals: Tensor) -> Tensor:
    """[B, 3, H, W] twice, in 0..1 -> [B]: structural similarity (Wang et al. 2004, equation 13).

    An 11 x 11 Gaussian window of sigma 1.5, no padding, the mean over positions and channels.
    """
    x, y = pictures.double(), originals.double()
    mean_x, mean_y = _blur(x), _blur(y)
    var_x = _blur(x * x) - mean_x * mean_x
    var_y = _blur(y * y) - mean_y * mean_y
    both = _blur(x * y) - mean_x * mean_y
    light = (2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1)
    shape = (2 * both + _C2) / (var_x + var_y + _C2)
    return (light * shape).flatten(1).mean(1)


def edge_sharpness(pictures: Tensor, originals: Tensor) -> Tensor:
    """[B, 3, H, W] twice, in 0..1 -> [B]: slope of the pictures over that of the originals, at the originals' edges.

    Edges are the steepest 2 % of the originals' pixels; 1 is as sharp, less is blurred.
    """
    wanted, found = _slope(originals), _slope(pictures)  # [B, n]
    steepest = wanted.topk(max(1, int(_EDGES * wanted.shape[1])), dim=1).indices
    return found.gather(1, steepest).sum(1) / wanted.gather(1, steepest).sum(1)


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
