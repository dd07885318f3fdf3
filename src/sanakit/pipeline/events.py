"""What happens while images are drawn, as small frozen values.

A generation yields these in order: `Started`, then for each stage `StageStarted`, any `Step`s, `StageDone`, after the
last stage of an image `PictureDone`, and at the end `Done`, or `Cancelled` if the caller asked to stop. A `Note`
may come anywhere. Progress bars, previews and cancelling are things a caller does between two events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sanakit.pipeline.request import ImageRequest

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

Stage = Literal["load", "text", "encode", "denoise", "decode"]


@dataclass(frozen=True, kw_only=True)
class Started:
    """The request with every open field filled, and the size in pixels that the transformer draws."""

    request: ImageRequest
    drawn_width: int
    drawn_height: int


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something worth knowing that stops nothing, such as the number of tokens cut from a long prompt."""

    message: str


@dataclass(frozen=True, kw_only=True)
class StageStarted:
    """A stage begins for image `index`; `total` steps follow, 0 if they can't be counted."""

    stage: Stage
    index: int = 0
    total: int = 0


@dataclass(frozen=True, kw_only=True)
class Step:
    """Step `index` (0-based) of `total` is done; `latent` is the current estimate of the clean latent.

    latent: [B, C, h, w], of B images that are drawn together, mostly 1.
    """

    stage: Stage
    index: int
    total: int
    latent: Tensor = field(repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class StageDone:
    """A stage ended after `seconds`."""

    stage: Stage
    seconds: float
    index: int = 0


@dataclass(frozen=True, kw_only=True)
class PictureDone:
    """Image `index` is ready; `request` draws exactly this one alone. made: more for its record than the model says."""

    index: int
    seed: int
    image: Image = field(repr=False, compare=False)
    request: ImageRequest
    made: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Done:
    """All images are ready; `timings` are seconds per stage, summed over the images."""

    timings: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Cancelled:
    """The caller asked to stop; `finished` images had been handed over."""

    finished: int
    timings: Mapping[str, float]


Event = Started | Note | StageStarted | Step | StageDone | PictureDone | Done | Cancelled
