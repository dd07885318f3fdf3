"""The job of training a transformer: the base model's encoders are frozen, and what they make lies in a cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Any, cast

import torch
from torch import nn

from sanakit.base.errors import ConfigError
from sanakit.base.precision import Precision
from sanakit.pipeline.memory import Shapes, estimate
from sanakit.training.config import TrainConfig
from sanakit.training.data import CacheCost, Prefetch
from sanakit.training.data.buckets import Bucket
from sanakit.training.data.cost import cache_cost
from sanakit.training.export import export
from sanakit.training.jobs.base import read_base
from sanakit.training.jobs.job import Size, Visit
from sanakit.training.jobs.opened import opened
from sanakit.training.jobs.visits import read_words, visits_of
from sanakit.training.loop import Batches, Chore, Loss, Run
from sanakit.training.parallel import World
from sanakit.training.preview import preview
from sanakit.training.report import Event
from sanakit.training.speed import kept_bytes, transformer_operations, transformer_pass
from sanakit.training.tasks.frozen import Frozen
from sanakit.training.tasks.latents import LatentBatch, LatentData
from sanakit.training.tasks.transformer import TransformerTask, build_network, network_config
from sanakit.training.validation import validation
from sanakit.transformer import SanaTransformer

_AHEAD = 4
_TOGETHER = 8  # pictures or captions that are encoded at once


class TextToImage:
    """See `Job`. Raises ConfigError, DataError or ModelNotFoundError."""

    def __init__(
        self, config: TrainConfig, precision: Precision, world: World, told: Callable[[str], object]
    ) -> None:
        self.config, self.precision, self.world = config, precision, world
        self.descriptor = read_base(config, told)
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
        lack, wanted = self.frozen.lack(), len(self.pictures) * len(config.phases)
        cost = self._cost(lack.buckets)
        once = partial(transformer_pass, self.shape, side, self.words)
        return Size(
            network=config.model.preset or config.base, parameters=parameters, trained=parameters,
            words=self.words, cached=wanted - len(lack.buckets), wanted=wanted, unknown=lack.unknown,
            cache_operations=cost.operations, cache_bytes=cost.latent_bytes + cost.text_bytes,
            operations=config.batch * self._per_sample(side * side, self.words),
            activations=int(samples * self._kept() * kept_bytes(once)), **self._beside(),
        )  # fmt: skip

    def _cost(self, lacking: Sequence[Bucket]) -> CacheCost:
        """Of the latents that the cache lacks, and, where it lacks any, of as many captions."""
        descriptor, each = self.descriptor, len(self.pictures) * len(self.config.phases)
        captions = sum(len(item.captions) for item in self.pictures) * len(lacking) // max(1, each)
        return cache_cost(lacking, [self.words] * captions, descriptor.autoencoder, descriptor.text_config)

    def _beside(self) -> dict[str, int]:
        """Bytes of the networks that are at work beside training: those that encode, and those that draw."""
        descriptor, side = self.descriptor, max(phase.size for phase in self.config.phases)
        shapes = Shapes(
            transformer=self.shape, autoencoder=descriptor.autoencoder, text=descriptor.text_config
        )
        kind = self.precision.device.type
        stages = {s.stage: s for s in estimate(shapes, side, side, self.precision.dtype, device=kind)}
        text, decode = stages["text"], stages["decode"]
        drawing = text.weights + sum(stages[name].total for name in ("denoise",)) + decode.weights
        encoding = max(text.weights + _TOGETHER * text.work, decode.weights + _TOGETHER * decode.work)
        return {"encoders": encoding, "drawing": drawing + max(text.work, decode.work)}

    @cached_property
    def words(self) -> int:
        """Tokens of a batch's text: captions are padded to the longest of theirs."""
        return read_words(self.pictures, self.descriptor, self.config.batch // self.config.accumulate)

    @cached_property
    def _per_sample(self) -> Callable[[int, int], float]:
        return transformer_operations(self.shape)

    def operations(self) -> Callable[[Any], float]:
        """By the size of the latents and the tokens that are read."""

        def of(batch: LatentBatch) -> float:
            count, _, height, width = batch.x0.shape
            return count * self._per_sample(height * width, batch.text.mask.shape[1])

        return of

    def _kept(self) -> float:
        """The share of activations that is not computed again."""
        every, depth = self.config.recompute, self.shape.depth
        recomputed = 0 if every < 1 else depth if every == 1 else depth - -(-depth // every)
        return min(1.0, (depth - recomputed + 1) / depth)

    def visits(self) -> tuple[Visit, ...]:
        """By the sizes of the set."""
        return visits_of(self.config, self.pictures)

    def prepare(self) -> Iterator[Event]:
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
        """A whole model in RUN/model, of the size of the last phase even where this process trained none of it."""
        self._task(model).enter(len(self.config.phases) - 1)
        where = export(self.config, self.descriptor, cast(SanaTransformer, model), run)
        return f"the model is in {where}: sanakit generate --model {where} PROMPT"

    def _task(self, model: nn.Module) -> TransformerTask:
        """One for the whole run: it remembers which phase the network is in."""
        if self._made is None or self._made.model is not model:
            self._made = TransformerTask(self.config, cast(SanaTransformer, model), self.ratio)
        return self._made
