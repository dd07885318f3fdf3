"""Pictures of a subject's class for prior preservation: a set of the user's, or drawn by the base model and kept.

    RUN/class/0000.png, 0000.txt ...   pictures with their prompts, a set like any other
    RUN/class.json                     how they were drawn

Picture k shows prompt k (they take turns) with the run's seed + k, so drawing goes on where it was interrupted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from sanakit.base.bounds import MAX_SEED
from sanakit.base.errors import ConfigError
from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.base.json_text import read_object
from sanakit.base.precision import Precision
from sanakit.data import PictureSet, open_set
from sanakit.data.caption_rule import CaptionRule
from sanakit.pipeline import ImageRequest, Model
from sanakit.pipeline.origin import Origin
from sanakit.training.config import TrainConfig
from sanakit.training.events import Event, Message, Progress
from sanakit.training.parallel import World
from sanakit.training.run_state import differences
from sanakit.training.sections import DataConfig
from sanakit.training.tasks.latents import cache_folder
from sanakit.weights import ModelSpec

_FACTS = "class.json"


class ClassPictures:
    """The class pictures of a run whose config wants some.

    Raises ConfigError if there are too few, or if those in the run's folder were drawn otherwise; DataError if a set
    can't be opened.
    """

    def __init__(self, config: TrainConfig, spec: ModelSpec, precision: Precision) -> None:
        self.run, self.spec, self.precision = config, spec, precision
        self.prior = config.lora.prior
        self.folder = self.prior.path or config.folder / "class"
        count = self.prior.count if self.prior.path is None else len(self.open())
        if count < config.batch:
            key = "lora.prior.count" if self.prior.path is None else str(self.folder)
            raise ConfigError(
                f"{key}: {count} class pictures can't join a batch of {config.batch}; it takes as many as that"
            )
        self.count = count
        if self.prior.path is None:
            self._check_same()

    @property
    def size(self) -> int:
        """Side in pixels of those that are drawn."""
        return max(phase.size for phase in self.run.phases)

    @property
    def config(self) -> TrainConfig:
        """The run's config with this set in place of its own, for whatever walks over a set."""
        run = self.run
        data = DataConfig(
            path=self.folder, cache=cache_folder(run), square=run.data.square,
            captions=CaptionRule(dropout=0.0), workers=run.data.workers,
        )  # fmt: skip
        return replace(run, data=data, seed=(run.seed + 1) % MAX_SEED, validate=0)

    def missing(self) -> list[int]:
        """Return the numbers of the pictures that are still to be drawn; none of a given set."""
        if self.prior.path is not None:
            return []
        return [number for number in range(self.count) if not self._path(number).exists()]

    def open(self) -> PictureSet:
        """Open the set; pictures without a caption get the first prompt. Raises DataError or ConfigError."""
        found = open_set(self.folder)
        if self.prior.prompts:
            return found.captioning(self.prior.prompts[0])
        if len(found.captioned) < len(found):
            raise ConfigError(
                f"lora.prior.path: {len(found) - len(found.captioned)} of the {len(found)} class pictures have no "
                "caption: say what they show, e.g. lora.prior.prompts=[a dog]"
            )
        return found

    def draw(self, world: World, model: Callable[[], Model] | None = None) -> Iterator[Event]:
        """Draw this process's share of what is missing; yield progress. model: for tests. Raises OutputError."""
        missing = self.missing()
        share = missing[world.share(len(missing))]
        world.wait()  # all have looked before the first one writes
        if not share:
            return
        ensure_writable_folder(self.folder)
        if world.leads:
            atomic_write(self.run.folder / _FACTS, (json.dumps(self._facts(), indent=1) + "\n").encode())
        drawer, begun = (model or self._model)(), time.monotonic()
        for done, number in enumerate(share):
            left = (time.monotonic() - begun) / done * (len(share) - done) if done else None
            yield Progress(label="drawing class pictures", done=done, total=len(share), remaining=left)
            self._draw_one(drawer, number)
        yield Progress(label="drawing class pictures", done=len(share), total=len(share), remaining=0.0)
        yield Message(step=0, text=f"drew {len(share)} class pictures to {self.folder}")

    def _draw_one(self, drawer: Model, number: int) -> None:
        prior, path = self.prior, self._path(number)
        prompt = prior.prompts[number % len(prior.prompts)]
        request = ImageRequest(
            prompt=prompt, seed=(self.run.seed + number) % MAX_SEED, steps=prior.steps, guidance=prior.guidance,
            width=self.size, height=self.size,
        )  # fmt: skip
        picture = drawer.images(request)[0]
        atomic_write(path.with_suffix(".txt"), f"{prompt}\n".encode())
        atomic_write(path, lambda draft: picture.save(draft, format="PNG"))

    def _model(self) -> Model:
        return Model(self.spec, self.precision, origin=Origin(name=self.run.base_model), frugal=False)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:04d}.png"

    def _facts(self) -> dict[str, Any]:
        prior = self.prior
        return {
            "base": self.run.base_model, "prompts": list(prior.prompts), "size": self.size, "seed": self.run.seed,
            "steps": prior.steps, "guidance": prior.guidance,
        }  # fmt: skip

    def _check_same(self) -> None:
        facts = self.run.folder / _FACTS
        if not facts.exists():
            return
        try:
            changed = differences(read_object(facts), self._facts())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{facts} can't be read: {error}") from None
        if changed:
            raise ConfigError(
                f"{self.folder} holds class pictures that were drawn otherwise ({'; '.join(changed[:3])}): "
                "move them away, name them in lora.prior.path, or set it back"
            )
