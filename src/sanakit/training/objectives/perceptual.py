"""How far a decoded picture is from its original: colour, edges, and LPIPS if its weights lie on disk.

Nothing is downloaded. LPIPS (arXiv 1801.03924) compares features of a network trained on ImageNet, which torchvision
provides; its own few weights come with torchmetrics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

LpipsNet = Literal["vgg", "alex", "squeeze"]
"""The network whose features are compared; DC-AE, like VQGAN, takes vgg."""

LPIPS_FILES: dict[LpipsNet, str] = {
    "vgg": "vgg16-397923af.pth",
    "alex": "alexnet-owt-7be5be79.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
"""The names under which torch.hub keeps torchvision's weights."""

_SCALES = 4
_EDGES = 0.03
"""Share of the pixels that are edges, a little more than `edge_sharpness` measures at."""
_FLAT = 1e-4  # no slope: pictures of one colour have no edges


@dataclass(frozen=True)
class Perceptual:
    """loss: (decoded, pixels), both [B, 3, H, W] in -1..1 -> []. words: what it is and why, for the run to say."""

    loss: Callable[[Tensor, Tensor], Tensor]
    words: str


def choose_perceptual(device: torch.device, net: LpipsNet = "vgg") -> Perceptual:
    """Choose LPIPS on `device` if it is there without a download, else edges at several scales."""
    missing = lpips_missing(net)
    if missing is None:
        return Perceptual(_lpips(net, device), f"perceptual loss: LPIPS with {net} features")
    words = f"perceptual loss: edges at {_SCALES} scales in place of LPIPS, because {missing}"
    return Perceptual(multiscale_edges, words)


def lpips_missing(net: LpipsNet = "vgg") -> str | None:
    """Return why LPIPS can't be used here; None if it can."""
    for library in ("torchmetrics", "torchvision"):
        if find_spec(library) is None:
            return f"{library} is not installed"
    path = Path(torch.hub.get_dir()) / "checkpoints" / LPIPS_FILES[net]
    return None if path.exists() else f"its weights are not at {path}"


def multiscale_edges(decoded: Tensor, pixels: Tensor) -> Tensor:
    """Mean over scales 1, 1/2, 1/4, 1/8 of the L1 error of horizontal and vertical differences.

    Scales at which a side would be shorter than two pixels are left out.
    """
    error = decoded.float() - pixels.float()
    total = [edge_error(error)]
    while len(total) < _SCALES and min(error.shape[-2:]) >= 4:
        error = F.avg_pool2d(error, 2)
        total.append(edge_error(error))
    return torch.stack(total).mean()


def _lpips(net: LpipsNet, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    network = LearnedPerceptualImagePatchSimilarity(net_type=net).net.to(device).eval().requires_grad_(False)

    def loss(decoded: Tensor, pixels: Tensor) -> Tensor:
        distance: Tensor = network(decoded.float(), pixels.float(), normalize=False)
        return distance.mean()

    return loss


def charbonnier(error: Tensor, eps: float = 1e-3) -> Tensor:
    """mean sqrt(e^2 + eps^2): L1 that is smooth at zero (arXiv 1704.03915, section 3.3)."""
    return (error.square() + eps**2).sqrt().mean()


def edge_error(error: Tensor) -> Tensor:
    """L1 of the error's horizontal and vertical differences: it punishes blur where L1 alone forgives it."""
    rows = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return rows + (error[..., :, 1:] - error[..., :, :-1]).abs().mean()


def steepness_error(error: Tensor) -> Tensor:
    """Mean square of the error's differences [B, 3, H, W]: of all that is lost, steep edges weigh most.

    L1 lets an edge go that may lie at several places, for none of them is likely; this keeps a part of it at each.
    """
    rows = (error[..., 1:, :] - error[..., :-1, :]).square().mean()
    return rows + (error[..., :, 1:] - error[..., :, :-1]).square().mean()


def slope_deficit(decoded: Tensor, pixels: Tensor) -> Tensor:
    """Mean slope that is missing at the edges of pixels [B, 3, H, W], along the slope that is there; a scalar.

    Where an edge may lie at several places, losses of single differences are least for a blurred one. This one asks for
    the steepness that `sanakit.evaluation.edge_sharpness` measures, and forgives what is steeper.
    """
    wanted, found = _slopes(pixels.float()), _slopes(decoded.float())  # [B, 6, n]
    size = torch.linalg.vector_norm(wanted, dim=1)
    steepest = size.topk(max(1, int(_EDGES * size.shape[1])), dim=1)
    at = steepest.indices[:, None].expand(-1, wanted.shape[1], -1)
    along = (wanted.gather(2, at) * found.gather(2, at)).sum(1) / steepest.values.clamp(min=_FLAT)
    return F.relu(steepest.values - along).mean() / 2  # a difference spans two pixels


def _slopes(x: Tensor) -> Tensor:
    """[B, 3, H, W] -> [B, 6, (H-2)*(W-2)]: central differences across and down."""
    across, down = x[..., 1:-1, 2:] - x[..., 1:-1, :-2], x[..., 2:, 1:-1] - x[..., :-2, 1:-1]
    return torch.cat([across, down], dim=1).flatten(2)


def reconstruction(decoded: Tensor, pixels: Tensor, edge_weight: float = 0.5) -> dict[str, Tensor]:
    """Named losses of decoded [B, 3, H, W] against pixels [B, 3, H, W], both in -1..1."""
    error = decoded.float() - pixels.float()
    colour = charbonnier(error)
    coarse = F.avg_pool2d(error, 2)
    edges = edge_error(error) + edge_error(coarse)
    mse = error.detach().square().mean()
    psnr = -10 * torch.log10(mse / 4)  # the range -1..1 spans 2
    return {"loss": colour + edge_weight * edges, "psnr": psnr}
