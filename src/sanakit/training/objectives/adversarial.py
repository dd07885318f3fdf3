"""The adversarial part of an autoencoder's loss: a discriminator of patches, hinge losses, and their weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sanakit.autoencoder import DCAE
from sanakit.layers.resample import Upsample

_STD = 0.02
_LARGEST_WEIGHT = 1e4
_DELTA = 1e-6


class PatchDiscriminator(nn.Module):
    """A score for every patch of 70 x 70 pixels (pix2pix, arXiv 1611.07004, section 3.2.2; as in VQGAN).

    `layers` halvings, then two convolutions without; `norm` is handed in, since a batch norm sees the batch of one
    process only. Starts from N(0, 0.02).
    """

    def __init__(
        self, width: int = 64, layers: int = 3, norm: Callable[[int], nn.Module] = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        channels = width
        for number in range(1, layers + 1):
            wider, stride = width * min(2**number, 8), 2 if number < layers else 1
            parts += [nn.Conv2d(channels, wider, 4, stride=stride, padding=1, bias=False), norm(wider)]
            parts += [nn.LeakyReLU(0.2)]
            channels = wider
        self.parts = nn.Sequential(*parts, nn.Conv2d(channels, 1, 4, padding=1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=_STD)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, _STD)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] in -1..1 -> scores [B, 1, h, w], high where a patch looks real."""
        scores: Tensor = self.parts(pixels)
        return scores


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """(mean relu(1 - real) + mean relu(1 + fake)) / 2 (arXiv 1705.02894)."""
    return 0.5 * (F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean())


def hinge_generator(fake: Tensor) -> Tensor:
    """-mean(fake): low when patches look real."""
    return -fake.float().mean()


def adaptive_weight(
    reconstruction: Tensor,
    adversarial: Tensor,
    last: nn.Parameter,
    mean: Callable[[Tensor], Tensor] = lambda gradient: gradient,
) -> Tensor:
    """|grad of reconstruction| / (|grad of adversarial| + 1e-6) at the last layer (VQGAN, arXiv 2012.09841, eq. 7).

    Both losses then pull equally hard. At most 10,000; no gradient flows through it. mean: of a gradient over all
    processes. The graph is kept: a network under torch.compile needs `torch._functorch.config.donated_buffer = False`
    for that.
    """
    ours, theirs = (
        mean(torch.autograd.grad(loss, last, retain_graph=True)[0]).norm()
        for loss in (reconstruction, adversarial)
    )
    weight: Tensor = (ours / (theirs + _DELTA)).clamp(0.0, _LARGEST_WEIGHT)
    return weight.detach()


def last_layer(model: DCAE) -> nn.Parameter:
    """Return the weight of the convolution that makes the pixels."""
    exit_ = model.decoder.exit
    conv = exit_.conv if isinstance(exit_, Upsample) else exit_
    return cast(nn.Parameter, conv.weight)
