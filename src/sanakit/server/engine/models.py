"""The networks of all models in memory: loaded when they are needed, and the least recently used released for others.

Only the worker's thread calls `need`; what other threads ask (`check`, `bytes`) reads plain numbers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch

from sanakit.base.errors import ShortageError
from sanakit.pipeline.components import PartName
from sanakit.pipeline.events import Stage
from sanakit.pipeline.memory import (
    StageMemory,
    available_bytes,
    cannot_fit,
    estimate,
    shortage,
    total_bytes,
)
from sanakit.pipeline.model import Model
from sanakit.pipeline.plan import Plan
from sanakit.pipeline.shapes import Shapes
from sanakit.text import MAX_TOKENS
from sanakit.transformer import ControlConfig

Part = tuple[str, PartName]
"""The name of a model, and one of its parts."""

STAGE: dict[PartName, Stage] = {
    "text": "text", "transformer": "denoise", "encoder": "encode", "decoder": "decode",
}  # fmt: skip
"""Part -> the stage in which it works."""

MARGIN = 0.8
"""Of free memory: estimates are within 20 % of what was measured."""

Free = Callable[[torch.device], int | None]


class Models:
    """The parts of models in memory. free: bytes that a device has left; None if unknown."""

    def __init__(self, models: Mapping[str, Model], free: Free = available_bytes) -> None:
        self.bytes = 0
        self._models, self._free = models, free
        self._working = 0
        self._used: OrderedDict[Part, int] = OrderedDict()  # part -> bytes of its weights, oldest use first

    def check(self, name: str, plan: Plan) -> None:
        """Raise ShortageError if this machine has too little memory for a plan, even if nothing else were loaded.

        Transformer and decoder are in memory at once, for one picture is decoded while others are drawn.
        """
        room = self.free(name)
        if room is None:
            return
        room += self.bytes + self._working
        needs = {each.stage: each for each in self._needs(name, plan)}
        beside = {"denoise": needs["decode"].weights, "decode": needs["denoise"].weights}
        short = shortage(
            tuple(
                replace(each, weights=each.weights + beside.get(stage, 0)) for stage, each in needs.items()
            ),
            room,
        )
        if short is not None and cannot_fit(short, room):
            raise ShortageError(
                f"{short.stage} needs about {short.total / 1e9:.1f} GB of memory, and {room / 1e9:.1f} GB can be had "
                "here: choose a smaller size or another model"
            )

    def batches(self, name: str) -> bool:
        """Return whether a model draws several pictures at once: a compiled or recorded one knows the shapes it saw."""
        engine = self._models[name].engine
        return not (engine.compile or engine.graphs)

    def free(self, name: str) -> int | None:
        """Return the bytes that are left on the device of a model; None if unknown."""
        return self._free(self._models[name].precision.device)

    def sample_bytes(self, name: str, plan: Plan) -> int:
        """Return the bytes that one sample of a plan's shape takes in a forward pass.

        Its working memory, and keys and values of a text twice: its own, and in the joined batch.
        """
        model = self._models[name]
        config, size = model.spec.transformer, model.parts.dtype("transformer").itemsize
        text = 2 * 2 * config.depth * MAX_TOKENS * config.width * size
        return self.work(name, plan, "transformer") // plan.branches + text

    def fits(self, name: str, parts: Collection[PartName], work: int, keep: Collection[Part]) -> bool:
        """Return whether parts find room to work beside those to keep, if all others are released."""
        free = self.free(name)
        if free is None:
            return True
        own = {(name, part) for part in parts}
        missing = sum(self._weights(*each) for each in own if not self._models[name].parts.is_loaded(each[1]))
        idle = sum(size for each, size in self._used.items() if each not in own and each not in keep)
        return MARGIN * (free + idle) >= missing + work

    def work(self, name: str, plan: Plan, part: PartName) -> int:
        """Return the bytes of the tensors alive while a part works for one image of a plan."""
        return next((each.work for each in self._needs(name, plan) if each.stage == STAGE[part]), 0)

    def need(self, name: str, part: PartName, work: int = 0, keep: Collection[Part] = ()) -> None:
        """Load a part, and release others, the least recently used first, until it has room to work.

        keep: parts in use, which stay. Raises WeightsError, or ShortageError if reading them found no memory.
        """
        model, key = self._models[name], (name, part)
        weights = 0 if model.parts.is_loaded(part) else self._weights(name, part)
        self._make_room(name, weights + work, {key, *keep})
        model.parts.load(part)
        if key not in self._used:
            self._used[key] = self._weights(name, part)
            self.bytes += self._used[key]
        self._used.move_to_end(key)

    def forget(self, name: str, part: PartName) -> None:
        """Note that a part has left memory by another way, such as LoRAs that are merged anew."""
        self.bytes -= self._used.pop((name, part), 0)

    @contextmanager
    def working(self, work: int) -> Iterator[None]:
        """Count bytes as free that are so again after the block, for `check` in other threads."""
        self._working = work
        try:
            yield
        finally:
            self._working = 0

    def _make_room(self, name: str, needed: int, keep: Collection[Part]) -> None:
        while (free := self.free(name)) is not None and MARGIN * free < needed:
            victim = next((each for each in self._used if each not in keep), None)
            if victim is None:
                return  # the estimate may be too high: whether it fits is seen when it is tried
            owner, part = victim
            self.forget(owner, part)
            self._models[owner].parts.release(part)

    def _weights(self, name: str, part: PartName) -> int:
        stages = self._stages(name, 32, 32, 1, True, ())
        return next(each.weights for each in stages if each.stage == STAGE[part])

    def _needs(self, name: str, plan: Plan) -> tuple[StageMemory, ...]:
        controls = tuple(each.spec.config for each in plan.controls)
        encode = plan.edit is not None or bool(controls)
        return self._stages(name, plan.drawn.width, plan.drawn.height, plan.branches, encode, controls)

    def _stages(
        self,
        name: str,
        width: int,
        height: int,
        branches: int,
        encode: bool,
        controls: tuple[ControlConfig, ...],
    ) -> tuple[StageMemory, ...]:
        model = self._models[name]
        device = model.precision.device
        return estimate(
            Shapes.of(model.spec), width, height, model.precision.dtype, branches, device.type, total_bytes(device),
            encode, controls,
        )  # fmt: skip
