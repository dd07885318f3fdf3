"""How far a decoded picture is from its original: distance in colour, and in edges at several scales."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def charbonnier(error: Tensor, eps: float = 1e-3) -> Tensor:
    """mean sqrt(e^2 + eps^2): L1 that is smooth at zero (arXiv 1704.03915, section 3.3)."""
    return (error.square() + eps**2).sqrt().mean()


def edge_error(error: Tensor) -> Tensor:
    """L1 of the error's horizontal and vertical differences: it punishes blur where L1 alone forgives it."""
    rows = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return rows + (error[..., :, 1:] - error[..., :, :-1]).abs().mean()


def reconstruction(decoded: Tensor, pixels: Tensor, edge_weight: float = 0.5) -> dict[str, Tensor]:
    """Named losses of decoded [B, 3, H, W] against pixels [B, 3, H, W], both in -1..1."""
    error = decoded.float() - pixels.float()
    colour = charbonnier(error)
    coarse = F.avg_pool2d(error, 2)
    edges = edge_error(error) + edge_error(coarse)
    mse = error.detach().square().mean()
    psnr = -10 * torch.log10(mse / 4)  # the range -1..1 spans 2
    return {"loss": colour + edge_weight * edges, "psnr": psnr}
