"""The job of training a transformer, alone or with its text encoder; what frozen encoders make lies in a cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Any, cast

import torch
from torch import nn

from sanakit.base.errors import ConfigError
from sanakit.base.precision import Precision
from sanakit.data import CacheCost, Prefetch
from sanakit.data.buckets import Bucket
from sanakit.data.cache import captions_of
from sanakit.data.cost import cache_cost
from sanakit.pipeline.memory import estimate
from sanakit.pipeline.shapes import Shapes
from sanakit.pipeline.threads import transformer_product
from sanakit.text import is_closed, load_tokenizer, words_of
from sanakit.training.config import TrainConfig
from sanakit.training.export import export
from sanakit.training.jobs.base import read_base
from sanakit.training.jobs.job import Size, Visit
from sanakit.training.jobs.opened import captioned, opened, uncaptioned_sentence
from sanakit.training.jobs.visits import read_words as count_words
from sanakit.training.jobs.visits import visits_of
from sanakit.training.loop import Batches, Chore, Loss, Run
from sanakit.training.parallel import World
from sanakit.training.preview import preview
from sanakit.training.reading import read_set
from sanakit.training.report import Event, Notice
from sanakit.training.speed import kept_bytes, transformer_operations, transformer_pass
from sanakit.training.tasks.frozen import Frozen
from sanakit.training.tasks.joint import JointNetwork, transformer_of
from sanakit.training.tasks.latents import LatentBatch, LatentData, held_items
from sanakit.training.tasks.text import TrainedText
from sanakit.training.tasks.transformer import TransformerTask, build_network, network_config
from sanakit.training.validation import validation
from sanakit.transformer import SanaTransformer
from sanakit.weights import ModelSpec, check_parts, read_words

_AHEAD = 4
_TOGETHER = 8  # pictures or captions that are encoded at once


class TextToImage:
    """See `Job`. Raises ConfigError, DataError or ModelNotFoundError."""

    def __init__(
        self, config: TrainConfig, precision: Precision, world: World, told: Callable[[str], object]
    ) -> None:
        self.config, self.precision, self.world = config, precision, world
        self.spec = read_base(config, told)
        if self.spec.kind != "sana":
            raise ConfigError(f"base: {config.base_model} is a {self.spec.kind} model; take a flow model")
        check_parts(self.spec)  # RUN/model is going to hold copies of them
        self.shape = network_config(config.model, self.spec)
        self.pictures, self.uncaptioned = captioned(config, opened(config))
        self.text = TrainedText(config, self.spec, self.pictures) if config.text.train else None
        self.frozen = Frozen(config, self.spec, precision, self.pictures)
        self.ratio = self.spec.autoencoder.ratio
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
        name, kept = config.model.preset or config.base_model, 0
        if self.text is not None:
            name, kept = f"{name} and its text encoder", self.text.kept
            parameters += self.text.parameters
        return Size(
            network=name, parameters=parameters, trained=parameters,
            words=self.words, cached=wanted - len(lack.buckets), wanted=wanted, unknown=lack.unknown,
            cache_operations=cost.operations, cache_bytes=cost.latent_bytes + cost.text_bytes,
            operations=config.batch * (self._per_sample(side * side, self.words) + self._per_caption),
            activations=int(samples * (self._kept() * kept_bytes(once) + kept)), **self._beside(),
        )  # fmt: skip

    def _cost(self, lacking: Sequence[Bucket]) -> CacheCost:
        """Of the latents that the cache lacks, and, where it lacks any, of as many captions."""
        spec, each = self.spec, len(self.pictures) * len(self.config.phases)
        written = 0 if self.text is not None else sum(len(item.captions) for item in self.pictures)
        captions = written * len(lacking) // max(1, each)
        return cache_cost(lacking, [self.words] * captions, spec.autoencoder, spec.text_config)

    def _beside(self) -> dict[str, int]:
        """Bytes of the networks that are at work beside training: those that encode, and those that draw."""
        spec, side = self.spec, max(phase.size for phase in self.config.phases)
        shapes = Shapes(transformer=self.shape, autoencoder=spec.autoencoder, text=spec.text_config)
        kind = self.precision.device.type
        stages = {s.stage: s for s in estimate(shapes, side, side, self.precision.dtype, device=kind)}
        text, decode = stages["text"], stages["decode"]
        drawing = text.weights + sum(stages[name].total for name in ("denoise",)) + decode.weights
        encoding = max(text.weights + _TOGETHER * text.work, decode.weights + _TOGETHER * decode.work)
        return {"encoders": encoding, "drawing": drawing + max(text.work, decode.work)}

    @cached_property
    def words(self) -> int:
        """Tokens of a batch's text: captions are padded to the longest of theirs."""
        return count_words(self.pictures, self.spec, self.config.batch // self.config.accumulate)

    @cached_property
    def _per_caption(self) -> float:
        """Operations of training the text encoder on one caption; 0 where it is frozen."""
        return 0.0 if self.text is None else self.text.operations

    @cached_property
    def _per_sample(self) -> Callable[[int, int], float]:
        return transformer_operations(self.shape)

    def operations(self) -> Callable[[Any], float]:
        """By the size of the latents and the tokens that are read."""

        def of(batch: LatentBatch) -> float:
            count, _, height, width = batch.x0.shape
            drawing = self._per_sample(height * width, batch.text.mask.shape[1])
            return float(count * (drawing + self._per_caption))

        return of

    def product(self) -> float:
        """Of the largest phase."""
        side = max(phase.size for phase in self.config.phases) // (self.ratio * self.shape.patch_size)
        samples = self.config.batch // (self.config.accumulate * self.world.size)
        return transformer_product(self.shape, samples * side**2)

    def _kept(self) -> float:
        """The share of activations that is not computed again."""
        every, depth = self.config.recompute, self.shape.depth
        recomputed = 0 if every < 1 else depth if every == 1 else depth - -(-depth // every)
        return min(1.0, (depth - recomputed + 1) / depth)

    def visits(self) -> tuple[Visit, ...]:
        """By the sizes of the set."""
        return visits_of(self.config, self.pictures)

    def prepare(self) -> Iterator[Event]:
        """Fix the words of a text encoder that is trained, and fill the cache."""
        if self.uncaptioned:
            yield Notice(step=0, text=f"passed over: {uncaptioned_sentence(self.uncaptioned)}")
        if self.text is not None:
            self.text.prepare(self.world)
        yield from self.frozen.fill(self.world)

    def remarks(self) -> Iterator[tuple[str, str]]:
        """What is passed over, and how well the text encoder reads the captions."""
        if self.uncaptioned:
            yield "passed by", uncaptioned_sentence(self.uncaptioned)
        if self.text is not None:
            words = f"; {self.text.words:,} words get a token of their own" if self.text.words else ""
            yield "text", f"its encoder is trained with the transformer{words}"
            return
        captions = captions_of(self.pictures)
        yield "text", read_set(self.spec, captions, self.precision).sentence()

    def build(self) -> SanaTransformer | JointNetwork:
        """The transformer, with the text encoder where that is trained."""
        network = build_network(self.config, self.spec, self.world.device)
        return network if self.text is None else JointNetwork(network, self.text.build(self.world.device))

    def blocks(self, model: nn.Module) -> Sequence[nn.Module]:
        """Those of the transformer."""
        return list(transformer_of(model).blocks)

    @cached_property
    def data(self) -> LatentData:
        """The batches; the cache must be filled."""
        shift = self.spec.schedule.shift
        read = None if self.text is None else self.text.read
        return LatentData(self.config, self.pictures, self.frozen.cached(), shift, self.world, read)

    def batches(self) -> AbstractContextManager[Batches]:
        """Read ahead by threads."""
        return Prefetch(self.data.batch, workers=self.config.data.workers, ahead=_AHEAD)

    def loss(self, model: nn.Module) -> Loss:
        """The velocity error."""
        return self._task(model).loss

    def chores(self, model: nn.Module) -> list[Chore]:
        """Previews, and validation where it is asked for."""
        chores = [preview(self.config, self.trained, self.precision, model)]
        if self.config.validate:
            chores.append(validation(self._task(model), self.data, self.config.validate))
        return chores

    def export(self, model: nn.Module, run: Run) -> str:
        """A whole model in RUN/model, of the size of the last phase."""
        where = export(self.config, self.trained, model, run, self._words())
        return f"the model is in {where}: sanakit generate --model {where} PROMPT"

    def _words(self) -> set[str]:
        """What the model has learnt, where its vocabulary is so small that this must be said."""
        if not is_closed(load_tokenizer(self.trained.tokenizer_folder)):
            return set()
        held = set(held_items(self.pictures, self.config.data.held))
        seen = (item for index, item in enumerate(self.pictures) if index not in held)
        words = {word for caption in captions_of(seen) for word in words_of(caption)}
        if self.config.model.start == "scratch":
            return words
        before = read_words(self.spec)
        return words | before if before else set()  # what a base model without a list knows is not known

    def _task(self, model: nn.Module) -> TransformerTask:
        """One for the whole run."""
        if self._made is None or self._made.model is not model:
            network = cast(SanaTransformer | JointNetwork, model)
            self._made = TransformerTask(self.config, network, self.ratio)
        return self._made

    @property
    def trained(self) -> ModelSpec:
        """The model under training, as its text encoder is described by now."""
        return self.spec if self.text is None else self.text.spec
