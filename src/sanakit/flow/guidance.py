"""Guidance: several answers of the network at one point, combined into one velocity.

    CFG                u + g (c - u)
    PAG                c + p (c - q)
    both               u + g (c - u) + p (c - q)

u is the unconditional answer (to the negative or empty prompt), c the conditional one, q the conditional one with
self-attention perturbed (each token keeps its own value). Scale g = 1 and p = 0 mean none. The formulas are linear, so
they hold for velocity, noise and x0 alike.

`Guidance` says which branches a step needs and combines their answers; who runs the network decides whether that is
one batch or several calls.

Sources: Ho and Salimans 2022, "Classifier-free diffusion guidance", arXiv:2207.12598; Kynkäänniemi et al. 2024,
"Applying guidance in a limited interval", arXiv:2404.07724; Ahn et al. 2024, "Perturbed-attention guidance",
arXiv:2403.17377, equation 16.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from sanakit.base.errors import RequestError

__all__ = ["Branch", "Guidance", "cfg", "pag"]

Branch = Literal["uncond", "cond", "perturbed"]
"""What a pass through the network is conditioned on."""


def cfg(uncond: Tensor, cond: Tensor, scale: float) -> Tensor:
    """Return classifier-free guidance u + g (c - u) [B, ...]."""
    return uncond + scale * (cond - uncond)


def pag(guided: Tensor, cond: Tensor, perturbed: Tensor, scale: float) -> Tensor:
    """Add perturbed-attention guidance p (c - q) to `guided`, the conditional answer or that of CFG [B, ...]."""
    return guided + scale * (cond - perturbed)


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """The scales of an image's guidance, and the noise levels at which they act.

    scale     CFG scale g; at 1 or below there is no unconditional branch
    interval  noise levels (low, high), both included, where CFG acts; outside, the conditional branch answers alone
    pag       PAG scale p; 0 turns it off

    Raises RequestError for a scale that isn't a finite number or an interval that isn't within 0..1.
    """

    scale: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)
    pag: float = 0.0

    def __post_init__(self) -> None:
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise RequestError(f"the guidance interval must lie within 0..1 and rise, not {low:g}..{high:g}")
        for name, value in (("guidance", self.scale), ("PAG", self.pag)):
            if not (math.isfinite(value) and value >= 0):
                raise RequestError(f"the {name} scale must be a number of at least 0, not {value!r}")

    def branches(self, sigma: float) -> tuple[Branch, ...]:
        """Return what a step at this noise level asks the network for; uncond first, as diffusers batches it."""
        low, high = self.interval
        inside = low <= min(sigma, 1.0) <= high  # the first level of scm is 1.0000037
        uncond: tuple[Branch, ...] = ("uncond",) if self.scale > 1 and inside else ()
        perturbed: tuple[Branch, ...] = ("perturbed",) if self.pag > 0 else ()
        return (*uncond, "cond", *perturbed)

    def combine(self, answers: Mapping[Branch, Tensor]) -> Tensor:
        """Return the guided velocity [B, ...] float32 from the velocities [B, ...] of `branches`."""
        cond = answers["cond"].float()
        result = cfg(answers["uncond"].float(), cond, self.scale) if "uncond" in answers else cond
        if "perturbed" in answers:
            result = pag(result, cond, answers["perturbed"].float(), self.pag)
        return result
