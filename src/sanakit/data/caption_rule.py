"""Which of a picture's captions a training step reads: sampled by score, and sometimes none at all.

Two rules use scores (CLIP score, 100 x cosine). `softmax` is that of the SANA paper (arXiv 2410.10629, section 2.4):
P(i) = exp(c_i / T) / sum_j exp(c_j / T). `power` is that of the published code: among the captions that reach the
threshold, P(i) is proportional to c_i^(1/T), and if none reaches it the best one is taken.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from sanakit.base.bounds import Bounds, Share
from sanakit.base.errors import ConfigError
from sanakit.base.seeds import hash_uniform
from sanakit.data.items import Caption, Item

CaptionKind = Literal["power", "softmax", "uniform", "first"]


@dataclass(frozen=True, kw_only=True)
class CaptionRule:
    """How a caption is sampled.

    Attributes:
        kind: "power" or "softmax" by score, "uniform" with equal probability, "first" takes the first.
        temperature: T of both rules, in units of the score for softmax.
        threshold: the least score of a caption in `power`.
        dropout: the probability of the empty prompt, for classifier-free guidance.

    Raises ConfigError for an unknown kind and for values out of range.
    """

    kind: CaptionKind = "power"
    temperature: Annotated[float, Bounds(above=0, most=10**6)] = 0.1
    threshold: Annotated[float, Bounds(least=-(10**6), most=10**6)] = 25.0
    dropout: Share = 0.1

    def __post_init__(self) -> None:
        if self.kind not in get_args(CaptionKind):
            raise ConfigError(f"unknown caption rule {self.kind!r}: use {', '.join(get_args(CaptionKind))}")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ConfigError(f"the temperature of captions must be above 0, not {self.temperature}")
        if not math.isfinite(self.threshold):
            raise ConfigError(f"the threshold of captions must be a number, not {self.threshold}")
        if not 0 <= self.dropout <= 1:
            raise ConfigError(f"caption dropout is a share in 0..1, not {self.dropout}")


def caption_for(item: Item, rule: CaptionRule, *, seed: int, epoch: int) -> str:
    """Sample the caption of a picture in an epoch, "" for the empty prompt: pure, so that runs resume exactly."""
    return choose_caption(item.captions, hash_uniform("caption", seed, epoch, item.key), rule)


def choose_caption(captions: Sequence[Caption], uniform: float, rule: CaptionRule) -> str:
    """Map a uniform number in [0, 1) to a caption, or to "" if it is dropped or there is none.

    One number decides both: below `dropout` the caption is dropped, the rest is rescaled to [0, 1).
    """
    if not captions or uniform < rule.dropout:
        return ""
    uniform = (uniform - rule.dropout) / (1 - rule.dropout)
    reached = 0.0
    shares = caption_shares(captions, rule)
    for caption, share in zip(captions, shares, strict=True):
        reached += share
        if uniform < reached:
            return caption.text
    # Rounding may leave the sum slightly below 1: take the last possible caption.
    return [c.text for c, share in zip(captions, shares, strict=True) if share > 0][-1]


def caption_shares(captions: Sequence[Caption], rule: CaptionRule) -> list[float]:
    """Return the probability of each caption, dropout left out; they sum to 1.

    The rules by score ignore a caption without one if another has one; if none is scored, all are equally likely.
    """
    if rule.kind == "first":
        return [1.0, *[0.0] * (len(captions) - 1)]
    scores = {index: score for index, c in enumerate(captions) if (score := _score(c)) is not None}
    if rule.kind == "uniform" or not scores:
        return [1 / len(captions)] * len(captions)
    logits = (_power if rule.kind == "power" else _softmax)(scores, rule)
    top = max(logits.values())
    weights = {index: math.exp(logit - top) for index, logit in logits.items()}
    total = sum(weights.values())
    return [weights.get(index, 0.0) / total for index in range(len(captions))]


def _score(caption: Caption) -> float | None:
    """Return the score, or None if it is missing or not finite."""
    return caption.score if caption.score is not None and math.isfinite(caption.score) else None


def _softmax(scores: dict[int, float], rule: CaptionRule) -> dict[int, float]:
    return {index: score / rule.temperature for index, score in scores.items()}


def _power(scores: dict[int, float], rule: CaptionRule) -> dict[int, float]:
    """Logarithms of the weights, because score^(1/T) overflows for small T."""
    good = {index: score for index, score in scores.items() if score >= rule.threshold and score > 0}
    if not good:
        best = max(scores, key=lambda index: scores[index])
        return {best: 0.0}
    return {index: math.log(score) / rule.temperature for index, score in good.items()}
