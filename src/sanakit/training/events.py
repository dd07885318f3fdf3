"""Events of a run: progress after every step, a report every few steps, and messages in between."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

_MESSAGE_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far something is, after every step of training and every batch of encoding. For bars; logs leave it out.

    Attributes:
        label: what is done, e.g. "training".
        done, total: of it. remaining: seconds expected, None if nothing is known yet.
    """

    label: str
    done: int
    total: int
    remaining: float | None = None


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """Means since the last report.

    Attributes:
        step, steps: steps done, of all.
        losses: by name.
        lr: that the last step was taken with.
        norm: of the gradient before clipping.
        seconds: per step of training; previews, validation and checkpoints are left out.
        eta: seconds left, with what previews and validation are expected to take.
        images: samples per second over all processes; 0 if unknown.
        waited: share of the training time that was spent waiting for data.
        mfu: share of the machine's rate of products that the model's own operations took, 1 at most; None if it is not
            counted.
        skipped: steps skipped since the run began.
    """

    step: int
    steps: int
    losses: dict[str, float]
    lr: float
    norm: float
    seconds: float
    eta: float = 0.0
    images: float = 0.0
    waited: float = 0.0
    mfu: float | None = None
    skipped: int = 0

    @property
    def values(self) -> dict[str, float]:
        """The figures by name, for journals and trackers."""
        known = {"lr": self.lr, "norm": self.norm, "steps_per_second": 1 / max(self.seconds, 1e-9)}
        rest = {"images_per_second": self.images, "waited": self.waited, "skipped": float(self.skipped)}
        return self.losses | known | rest | ({} if self.mfu is None else {"mfu": self.mfu})

    @property
    def figures(self) -> dict[str, str]:
        """Losses, rate and speed as they are shown, by name, in the order of a line."""
        images = {"images": f"{self.images:.1f} images/s"} if self.images else {}
        return {
            **{name: f"{name} {value:.5f}" for name, value in self.losses.items()},
            "lr": f"lr {self.lr:.2e}", "norm": f"norm {self.norm:.3g}",
            "speed": f"{1 / max(self.seconds, 1e-9):.2f} steps/s", **images,
            **({} if self.mfu is None else {"mfu": f"mfu {self.mfu:.0%}"}),
        }  # fmt: skip

    def __str__(self) -> str:
        skipped = f" skipped {self.skipped}" if self.skipped else ""
        figures = " ".join(self.figures.values())
        return f"step {self.step}/{self.steps} {figures} eta {self.eta / 60:.1f} min{skipped}"


@dataclass(frozen=True, kw_only=True)
class Message:
    """A sentence of the run: saved, skipped, gone back, a preview that failed.

    values: figures to keep, if any. picture: a PNG to show beside them.
    """

    step: int
    text: str
    values: dict[str, float] = field(default_factory=dict)
    picture: Path | None = None

    def __str__(self) -> str:
        return f"step {self.step}: {self.text}"


Event = Progress | StepReport | Message


def with_messages(progress: Iterable[Progress]) -> Iterator[Progress | Message]:
    """Yield progress, and for logs every ten seconds a message that says how much of it is left."""
    told = time.monotonic()
    for each in progress:
        yield each
        if each.remaining is not None and time.monotonic() - told > _MESSAGE_SECONDS:
            told = time.monotonic()
            left = f"{each.remaining / 60:.1f} min left"
            yield Message(step=0, text=f"{each.label}: {each.done} of {each.total}, {left}")


def sentences(events: Iterable[Event]) -> Iterator[StepReport | Message]:
    """Yield the events that a log keeps: all but progress."""
    return (event for event in events if not isinstance(event, Progress))
