"""What a run says while it trains: a line every few steps, and sentences in between."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Report:
    """Means since the last report.

    Attributes:
        step, steps: steps done, of all.
        losses: by name.
        lr: of the last step.
        norm: of the gradient before clipping.
        seconds: per step.
        images: samples per second over all processes; 0 where the batch is unknown.
        waited: share of the time that was spent waiting for data.
        mfu: share of the machine's rate of products that the model's own operations took; None where not counted.
        skipped: steps skipped since the run began.
    """

    step: int
    steps: int
    losses: dict[str, float]
    lr: float
    norm: float
    seconds: float
    images: float = 0.0
    waited: float = 0.0
    mfu: float | None = None
    skipped: int = 0

    @property
    def eta(self) -> float:
        """Seconds left at the present rate."""
        return (self.steps - self.step) * self.seconds

    @property
    def values(self) -> dict[str, float]:
        """The figures by name, for journals and trackers."""
        known = {"lr": self.lr, "norm": self.norm, "steps_per_second": 1 / max(self.seconds, 1e-9)}
        rest = {"images_per_second": self.images, "waited": self.waited, "skipped": float(self.skipped)}
        return self.losses | known | rest | ({} if self.mfu is None else {"mfu": self.mfu})

    @property
    def figures(self) -> str:
        """Losses, rate and speed in a line."""
        losses = " ".join(f"{name} {value:.5f}" for name, value in self.losses.items())
        images = f" {self.images:.1f} images/s" if self.images else ""
        mfu = "" if self.mfu is None else f" mfu {self.mfu:.0%}"
        speed = f"{1 / max(self.seconds, 1e-9):.2f} steps/s{images}{mfu}"
        return f"{losses} lr {self.lr:.2e} norm {self.norm:.3g} {speed}"

    def __str__(self) -> str:
        skipped = f" skipped {self.skipped}" if self.skipped else ""
        return f"step {self.step}/{self.steps} {self.figures} eta {self.eta / 60:.1f} min{skipped}"


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A sentence of the run: saved, skipped, gone back, a preview that failed. values: figures to keep, if any."""

    step: int
    text: str
    values: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"step {self.step}: {self.text}"


Event = Report | Notice
