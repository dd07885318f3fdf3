"""Guidance: several answers of the network at one point, combined into one velocity.

    CFG                u + g (c - u)
    PAG                c + p (c - q)
    both               u + g (c - u) + p (c - q)

u is the answer to the null prompt, c to the text, q to the text with self-attention perturbed (each token keeps its
own value). Scale g = 1 and p = 0 mean none. The formulas are linear, so they hold for velocity, noise and x0 alike.

`Guided` asks only for the branches a step needs, and asks for them together: the owner of the network decides
whether that is one batch or several calls.

Sources: Ho and Salimans 2022, "Classifier-free diffusion guidance", arXiv:2207.12598; Kynkäänniemi et al. 2024,
"Applying guidance in a limited interval", arXiv:2404.07724; Ahn et al. 2024, "Perturbed-attention guidance",
arXiv:2403.17377, equation 16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from sanakit.base.errors import RequestError

__all__ = ["Branch", "Guided", "Predict", "cfg", "pag", "pag_scale_at"]

Branch = Literal["null", "text", "perturbed"]
"""What a pass through the network is conditioned on."""

Predict = Callable[[Tensor, float, int, tuple[Branch, ...]], Sequence[Tensor]]
"""predict(x [B, ...], sigma, index, branches) -> one velocity [B, ...] per branch, in the order asked for."""


def cfg(null: Tensor, text: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance u + g (c - u) [B, ...]."""
    return null + scale * (text - null)


def pag(guided: Tensor, text: Tensor, perturbed: Tensor, scale: float) -> Tensor:
    """Perturbed-attention guidance on top of `guided` (the text's answer, or that of CFG): + p (c - q) [B, ...]."""
    return guided + scale * (text - perturbed)


def pag_scale_at(sigma: float, scale: float, adaptive: float = 0.0) -> float:
    """The PAG scale at a noise level: p - adaptive * 1000 (1 - sigma), not below 0."""
    return max(0.0, scale - adaptive * 1000 * (1 - sigma)) if adaptive > 0 else scale


@dataclass(frozen=True, kw_only=True, eq=False)
class Guided:
    """A `denoise` for the solvers, made of a `predict` that answers per branch.

    predict       see Predict
    scale         CFG scale g; at 1 or below there is no null branch
    interval      noise levels (low, high), both included, where CFG acts; outside, the text answers alone
    pag           PAG scale p; 0 turns it off
    pag_adaptive  how fast p falls with the noise level, see `pag_scale_at`

    Raises RequestError for a scale that is no number or an interval that is not within 0..1.
    """

    predict: Predict
    scale: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)
    pag: float = 0.0
    pag_adaptive: float = 0.0

    def __post_init__(self) -> None:
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise RequestError(f"the guidance interval must lie within 0..1 and rise, not {low:g}..{high:g}")
        for name, value in (("guidance", self.scale), ("PAG", self.pag), ("adaptive PAG", self.pag_adaptive)):
            if not (math.isfinite(value) and value >= 0):
                raise RequestError(f"the {name} scale must be a number of at least 0, not {value!r}")

    def branches(self, sigma: float) -> tuple[Branch, ...]:
        """What the step at this noise level asks the network for; null first, as diffusers batches it."""
        low, high = self.interval
        inside = low <= min(sigma, 1.0) <= high  # the first angle of scm lies 4e-6 above pi/2
        null: tuple[Branch, ...] = ("null",) if self.scale > 1 and inside else ()
        perturbed: tuple[Branch, ...] = ("perturbed",) if self._pag_at(sigma) > 0 else ()
        return (*null, "text", *perturbed)

    def __call__(self, x: Tensor, sigma: float, index: int) -> Tensor:
        """The guided velocity [B, ...] float32 at x [B, ...], noise level sigma, step index."""
        branches = self.branches(sigma)
        answers = dict(zip(branches, self.predict(x, sigma, index, branches), strict=True))
        text = answers["text"].float()
        result = cfg(answers["null"].float(), text, self.scale) if "null" in answers else text
        if "perturbed" in answers:
            result = pag(result, text, answers["perturbed"].float(), self._pag_at(sigma))
        return result

    def _pag_at(self, sigma: float) -> float:
        return pag_scale_at(sigma, self.pag, self.pag_adaptive)
