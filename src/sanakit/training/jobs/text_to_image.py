"""The job of training a transformer: the base model's encoders are frozen, and what they make lies in a cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import cast

import torch
from torch import nn

from sanakit.base.errors import ConfigError
from sanakit.base.precision import Precision
from sanakit.training.config import TrainConfig
from sanakit.training.data import Prefetch
from sanakit.training.export import export
from sanakit.training.jobs.job import Size
from sanakit.training.jobs.opened import opened
from sanakit.training.loop import Batches, Chore, Loss, Run
from sanakit.training.parallel import World
from sanakit.training.preview import preview
from sanakit.training.report import Notice
from sanakit.training.speed import kept_bytes, train_operations, transformer_pass
from sanakit.training.tasks.frozen import Frozen
from sanakit.training.tasks.latents import LatentData
from sanakit.training.tasks.transformer import TransformerTask, build_network, network_config
from sanakit.training.validation import validation
from sanakit.transformer import SanaTransformer
from sanakit.weights import read_descriptor, resolve

_WORDS = 300
_AHEAD = 4


class TextToImage:
    """See `Job`. Raises ConfigError, DataError or ModelNotFoundError."""

    def __init__(
        self, config: TrainConfig, precision: Precision, world: World, told: Callable[[str], object]
    ) -> None:
        self.config, self.precision, self.world = config, precision, world
        self.descriptor = read_descriptor(resolve(config.base, announce=told))
        if self.descriptor.kind != "sana":
            raise ConfigError(f"base: {config.base} is a {self.descriptor.kind} model; take a flow model")
        self.shape = network_config(config.model, self.descriptor)
        self.pictures = opened(config)
        self.frozen = Frozen(config, self.descriptor, precision, self.pictures)
        self.ratio = self.descriptor.autoencoder.ratio
        self._made: TransformerTask | None = None

    def size(self) -> Size:
        """The largest phase decides."""
        config = self.config
        with torch.device("meta"):
            parameters = sum(p.numel() for p in SanaTransformer(self.shape).parameters())
        side = max(phase.size for phase in config.phases) // self.ratio
        samples = config.batch // (config.accumulate * self.world.size)
        there, wanted = self.frozen.count()
        once = partial(transformer_pass, self.shape, side, _WORDS)
        return Size(
            network=config.model.preset or config.base, parameters=parameters, cached=there, wanted=wanted,
            operations=config.batch * train_operations(once),
            activations=int(samples * self._kept() * kept_bytes(once)),
        )  # fmt: skip

    def _kept(self) -> float:
        """The share of activations that is not computed again."""
        every, depth = self.config.recompute, self.shape.depth
        recomputed = 0 if every < 1 else depth if every == 1 else depth - -(-depth // every)
        return min(1.0, (depth - recomputed + 1) / depth)

    def prepare(self) -> Iterator[Notice]:
        """Fill the cache."""
        return self.frozen.fill(self.world)

    def build(self) -> SanaTransformer:
        """The transformer."""
        return build_network(self.config, self.descriptor, self.world.device)

    def blocks(self, model: nn.Module) -> Sequence[nn.Module]:
        """Those of the transformer."""
        return list(cast(SanaTransformer, model).blocks)

    @cached_property
    def data(self) -> LatentData:
        """The batches; the cache must be filled."""
        shift = self.descriptor.schedule.shift
        return LatentData(self.config, self.pictures, self.frozen.cached(), shift, self.world)

    def batches(self) -> AbstractContextManager[Batches]:
        """Read ahead by threads."""
        return Prefetch(self.data.batch, workers=self.config.data.workers, ahead=_AHEAD)

    def loss(self, model: nn.Module) -> Loss:
        """The velocity error."""
        return self._task(model).loss

    def chores(self, model: nn.Module) -> list[Chore]:
        """Previews, and validation where it is asked for."""
        network = cast(SanaTransformer, model)
        chores = [preview(self.config, self.descriptor, self.precision, network)]
        if self.config.validate:
            chores.append(validation(self._task(model), self.data, self.config.validate))
        return chores

    def export(self, model: nn.Module, run: Run) -> str:
        """A whole model in RUN/model."""
        where = export(self.config, self.descriptor, cast(SanaTransformer, model), run)
        return f"the model is in {where}: sanakit generate --model {where} PROMPT"

    def _task(self, model: nn.Module) -> TransformerTask:
        """One for the whole run: it remembers which phase the network is in."""
        if self._made is None or self._made.model is not model:
            self._made = TransformerTask(self.config, cast(SanaTransformer, model), self.ratio)
        return self._made
