"""Left and right, taught by contrast: a scene under its own caption and under the mirrored one, at the same noise."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from recipes.toybox_model import Captions
from sanakit.flow.path import LinearPath

CONTRAST = 0.1
EVERY = 4  # steps
TIMES = (0.75, 0.98)  # where a picture's layout is decided
GAP = 0.025  # of the loss: half of what front and behind are worth there
PAIRS = 6


def mirrored(line: str) -> str:
    """The caption that says left for right and right for left: false for its scene, and true of every other word."""
    other = {"left": "right", "right": "left"}
    return re.sub(r"\b(?:left|right)\b", lambda word: other[word[0]], line)


@dataclass(frozen=True)
class TransformerBatch:
    """Latents x0 [B, C, h, w] with captions; and of some scenes x0 [P, C, h, w] with captions [2P], true then mirrored.

    pairs: None in steps that contrast nothing.
    """

    x0: Tensor
    captions: Captions
    sided: Tensor
    pairs: Captions | None


def side_contrast(
    forward: Callable[..., tuple[Tensor, Tensor]],
    path: LinearPath,
    batch: TransformerBatch,
    generator: torch.Generator,
) -> Tensor:
    """How little better a scene is predicted with its own caption than with the mirrored one, at the same noise.

    Left and right are worth a thousandth of the flow's loss, far below what noise does to its gradient: 17,000 steps
    did not find them. The difference of two predictions under one noise has nothing else in it.
    """
    if batch.pairs is None:
        return torch.zeros((), device=batch.x0.device)
    low, high = TIMES
    t = low + (high - low) * torch.rand(len(batch.sided), generator=generator).to(batch.x0.device)
    noise = torch.randn(batch.sided.shape, generator=generator).to(batch.x0.device)
    point, target = path.point(batch.sided, noise, t), path.target(batch.sided, noise, t)
    predicted, _ = forward(point.repeat(2, 1, 1, 1), (1000 * t).floor().repeat(2), batch.pairs)
    errors = (predicted.float() - target.repeat(2, 1, 1, 1)).square().mean((1, 2, 3))
    return contrast(*errors.chunk(2))


def contrast(true: Tensor, false: Tensor) -> Tensor:
    """How little better scenes are predicted with their own captions: errors [P] with those and with mirrored ones."""
    return F.softplus((true - false) / GAP).mean()
