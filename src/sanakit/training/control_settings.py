"""The settings of the task "control": which pictures steer, and how much of the base network is copied."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from sanakit.base.bounds import Bounds, Share
from sanakit.base.errors import ConfigError
from sanakit.data.annotators import Annotator

FILES, MODEL = "files", "model"
"""Values of `annotator` beside the names of annotators."""


@dataclass(frozen=True, kw_only=True)
class ControlTraining:
    """Settings that only the task "control" reads.

    Attributes:
        annotator: what makes a control picture of each picture, as cut for the run: canny, soft, tile, grid, grey or
            mask; "model" for one of transformers; "files" for control pictures that are there.
        settings: of the annotator, e.g. {sigma: 1.5}; see `sanakit annotate --help`.
        model: a folder or hub id of a model for depth, with annotator "model".
        pictures: a folder of control pictures with the names of the pictures, with annotator "files"; None for those
            that lie beside the pictures as `x.control.png`.
        copies: blocks of the base network that are copied, the first ones; fewer are faster and weaker.
        start: "base" begins with copies of the base network, else with the ControlNet in this folder.
        dropout: share of the pictures that are seen without their control, so that an empty one means nothing.
    """

    annotator: Annotated[str, Bounds()] = "canny"
    settings: dict[str, float] = field(default_factory=dict)
    model: Annotated[str, Bounds()] | None = None
    pictures: Annotated[Path, Bounds()] | None = None
    copies: Annotated[int, Bounds(least=1, most=1000)] = 7
    start: Annotated[str, Bounds()] = "base"
    dropout: Share = 0.0

    def __post_init__(self) -> None:
        if self.annotator not in (FILES, MODEL):
            Annotator(name=self.annotator, settings=self.settings)
        elif self.settings:
            raise ConfigError(f"control.settings: the annotator {self.annotator!r} has none")
        if (self.annotator == MODEL) != (self.model is not None):
            raise ConfigError(
                "control.model names a model of transformers: it goes with control.annotator=model"
            )
        if self.pictures is not None and self.annotator != FILES:
            raise ConfigError("control.pictures is a folder of control pictures: add control.annotator=files")
