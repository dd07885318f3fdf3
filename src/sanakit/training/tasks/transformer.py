"""The task of training a transformer, alone or with its text encoder; what frozen encoders make lies in a cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sanakit.base.errors import ConfigError
from sanakit.base.precision import Precision
from sanakit.base.sizes import BUCKETS
from sanakit.data import CacheCost, PictureSet, Prefetch
from sanakit.data.buckets import Bucket
from sanakit.data.cache import captions_of
from sanakit.data.cost import cache_cost
from sanakit.pipeline.components import fingerprint
from sanakit.pipeline.memory import estimate
from sanakit.pipeline.shapes import Shapes, transformer_parameters
from sanakit.pipeline.threads import transformer_product
from sanakit.text import is_closed, load_tokenizer, words_of
from sanakit.training.caption_reading import read_set
from sanakit.training.config import TrainConfig
from sanakit.training.cost import kept_bytes, transformer_operations, transformer_pass
from sanakit.training.events import Event, Message
from sanakit.training.objectives.flow_matching import FlowMatching, phase_config
from sanakit.training.objectives.objective import Measurable, Objective, choose_objective
from sanakit.training.parallel import World
from sanakit.training.preview import Drawer, averaged, preview
from sanakit.training.tasks.base_model import read_base
from sanakit.training.tasks.joint_text import (
    JointNetwork,
    TrainedText,
    layers_of,
    text_weights,
    transformer_of,
    transformer_weights,
)
from sanakit.training.tasks.latent_cache import LatentCacheFiller
from sanakit.training.tasks.latents import LatentBatch, LatentData
from sanakit.training.tasks.network import build_network, network_config
from sanakit.training.tasks.task import Workload
from sanakit.training.tasks.training_set import (
    Epoch,
    caption_tokens,
    captioned,
    epochs_of,
    held_items,
    open_training_set,
    uncaptioned_sentence,
)
from sanakit.training.trainer import Batches, Hook, Trainer
from sanakit.training.validation import validation
from sanakit.transformer import SanaTransformer, TransformerConfig
from sanakit.weights import ModelSpec, check_parts, read_words, write_derived

OBJECTIVES: dict[str, Callable[[TrainConfig, SanaTransformer | JointNetwork, int, float], Objective]] = {
    "flow_matching": FlowMatching,
}
"""Each is made of (config, network, pixels per latent position, the base model's shift); the first is the default."""

_AHEAD = 4
_AT_ONCE = 8  # pictures or captions that are encoded together


class TransformerTask:
    """See `Task`. Raises ConfigError, DataError or ModelNotFoundError."""

    instead = ""
    """What to do about a base model of few steps, as the end of a sentence."""

    def __init__(
        self, config: TrainConfig, precision: Precision, world: World, notify: Callable[[str], object]
    ) -> None:
        self.config, self.precision, self.world = config, precision, world
        self.spec = read_base(config, notify)
        if self.spec.kind != "sana":
            raise ConfigError(
                f"base: {config.base_model} is a {self.spec.kind} model; take a flow model{self.instead}"
            )
        check_parts(self.spec)  # RUN/model is going to hold copies of them
        self.base_weights = fingerprint(self.spec)
        self.network_config = self.wanted_network()
        self.pictures, self.uncaptioned = captioned(config, self.opened())
        self.text = TrainedText(config, self.spec, self.pictures) if config.text.train else None
        self.cache = LatentCacheFiller(config, self.spec, precision, self.pictures)
        self.ratio = self.spec.autoencoder.ratio

    def opened(self) -> PictureSet:
        """Open the pictures that the run may use. Raises ConfigError or DataError."""
        return open_training_set(self.config)

    def wanted_network(self) -> TransformerConfig:
        """Read the configuration of the network that is trained. Raises ConfigError."""
        choose_objective(tuple(OBJECTIVES), self.config.objective)
        return network_config(self.config.model, self.spec)

    def workload(self) -> Workload:
        """As `Task.workload`; the largest phase decides."""
        config = self.config
        parameters = transformer_parameters(self.network_config)
        missing, wanted = self.cache.missing(), len(self.pictures) * len(config.phases)
        cost = self._cost(missing.buckets)
        once = partial(transformer_pass, self.network_config, self.side, self.words)
        name, kept = config.model.preset or config.base_model, 0
        if self.text is not None:
            name, kept = f"{name} and its text encoder", self.text.kept
            parameters += self.text.parameters
        return Workload(
            network=name, parameters=parameters, trained=parameters,
            words=self.words, cached=wanted - len(missing.buckets), wanted=wanted, unknown=missing.unknown,
            cache_operations=cost.operations, cache_bytes=cost.latent_bytes + cost.text_bytes,
            operations=config.batch * (self._per_sample(self.side**2, self.words) + self._per_caption),
            activations=int(self.samples * (self._kept() * kept_bytes(once) + kept)), **self._beside(),
        )  # fmt: skip

    def _cost(self, lacking: Sequence[Bucket]) -> CacheCost:
        """Return the cost of the latents that the cache lacks and, if it lacks any, of as many captions."""
        spec, each = self.spec, len(self.pictures) * len(self.config.phases)
        written = 0 if self.text is not None else sum(len(item.captions) for item in self.pictures)
        captions = written * len(lacking) // max(1, each)
        return cache_cost(lacking, [self.words] * captions, spec.autoencoder, spec.text_config)

    def _beside(self) -> dict[str, int]:
        """Bytes of the networks that are at work beside training: those that encode, and those that draw."""
        spec, side = self.spec, self.side * self.ratio
        shapes = Shapes(transformer=self.network_config, autoencoder=spec.autoencoder, text=spec.text_config)
        kind = self.precision.device.type
        stages = {s.stage: s for s in estimate(shapes, side, side, self.precision.dtype, device=kind)}
        text, decode = stages["text"], stages["decode"]
        drawing = text.weights + stages["denoise"].total + decode.weights
        encoding = max(text.weights + _AT_ONCE * text.work, decode.weights + _AT_ONCE * decode.work)
        return {"encoders": encoding, "drawing": drawing + max(text.work, decode.work)}

    @property
    def side(self) -> int:
        """Latent positions along a side of the largest phase."""
        return max(phase.size for phase in self.config.phases) // self.ratio

    @property
    def samples(self) -> int:
        """Samples of a micro-batch on this process."""
        return self.config.batch // (self.config.accumulate * self.world.size)

    @cached_property
    def words(self) -> int:
        """Tokens of a batch's text: captions are padded to the longest of theirs."""
        return caption_tokens(self.pictures, self.spec, self.config.batch // self.config.accumulate)

    @cached_property
    def _per_caption(self) -> float:
        """Operations of training the text encoder on one caption; 0 if it is frozen."""
        return 0.0 if self.text is None else self.text.operations

    @cached_property
    def _per_sample(self) -> Callable[[int, int], float]:
        return transformer_operations(self.network_config)

    def operations(self) -> Callable[[Any], float]:
        """Count by the size of the latents and the tokens that are read."""
        return operations_of(lambda positions, words: self._per_sample(positions, words) + self._per_caption)

    def product(self) -> float:
        """Count a product of the largest phase."""
        tokens = (self.side // self.network_config.patch_size) ** 2
        return transformer_product(self.network_config, self.samples * tokens)

    def _kept(self) -> float:
        """Return the share of activations that is not computed again."""
        every, depth = self.config.recompute, self.network_config.depth
        recomputed = 0 if every < 1 else depth if every == 1 else depth - -(-depth // every)
        return min(1.0, (depth - recomputed + 1) / depth)

    def epochs(self) -> tuple[Epoch, ...]:
        """Count epochs by the sizes of the set."""
        return epochs_of(self.config, self.pictures)

    def prepare(self) -> Iterator[Event]:
        """Fix the words of a text encoder that is trained, and fill the cache."""
        if self.uncaptioned:
            yield Message(step=0, text=f"passed over: {uncaptioned_sentence(self.uncaptioned)}")
        if self.text is not None:
            self.text.prepare(self.world)
        yield from self.cache.fill(self.world)

    def remarks(self) -> Iterator[tuple[str, str]]:
        """Say what is passed over, and how well the text encoder reads the captions."""
        if self.uncaptioned:
            yield "passed by", uncaptioned_sentence(self.uncaptioned)
        if self.text is not None:
            words = f"; {self.text.words:,} words get a token of their own" if self.text.words else ""
            yield "text", f"its encoder is trained with the transformer{words}"
            return
        captions = captions_of(self.pictures)
        yield "text", read_set(self.spec, captions, self.precision).sentence()

    def objective(self) -> Objective:
        """Build the transformer, and the text encoder if that is trained, under the objective of the config."""
        transformer = self.build()
        return self.minimising(
            transformer
            if self.text is None
            else JointNetwork(transformer, self.text.build(self.world.device))
        )

    def build(self) -> SanaTransformer:
        """Build the transformer with its first weights, float32. Raises ConfigError or WeightsError."""
        return build_network(self.config, self.spec, self.world.device)

    def minimising(self, network: SanaTransformer | JointNetwork) -> Objective:
        """Return the objective of the config for a network."""
        chosen = OBJECTIVES[choose_objective(tuple(OBJECTIVES), self.config.objective)]
        return chosen(self.config, network, self.ratio, self.spec.schedule.shift)

    def main(self, network: nn.Module) -> nn.Module:
        """Return the part of the network whose averaged weights become the model: all of it."""
        return network

    def blocks(self, network: nn.Module) -> nn.ModuleList:
        """Return those of the transformer."""
        return transformer_of(self.main(network)).blocks

    def parts(self, network: nn.Module) -> Sequence[nn.Module]:
        """Return the layers of a text encoder that is trained."""
        return layers_of(network)

    @cached_property
    def data(self) -> LatentData:
        """The batches; the cache must be filled."""
        read = None if self.text is None else self.text.read
        return LatentData(self.config, self.pictures, self.cache.cached(), self.world, read)

    def batches(self, objective: Objective) -> AbstractContextManager[Batches]:
        """Read and draw ahead in threads."""
        return Prefetch(self.drawing(objective), workers=self.config.data.workers, ahead=_AHEAD)

    def drawing(self, objective: Objective) -> Callable[[int], Any]:
        """Return what gives a micro-batch by number, with all that the objective draws."""
        data = self.data
        return lambda number: objective.draw(data.batch(number))

    def hooks(self, objective: Objective) -> list[Hook]:
        """Return previews, and validation if it is asked for."""
        hooks = [preview(self.config, self.described, self.drawer(objective), self.drawn)]
        if self.config.validate:
            if not isinstance(objective, Measurable):
                raise ConfigError(
                    "validate: this objective can't be measured on held-out pictures; leave it out"
                )
            hooks.append(validation(objective, self.data, self.config.validate))
        return hooks

    def drawer(self, objective: Objective) -> Drawer:
        """Return what draws previews."""
        return averaged(self.config, self.precision, self.main(objective.network))

    def export(self, objective: Objective, trainer: Trainer) -> str:
        """Write a whole model to RUN/model, of the size of the last phase."""
        spec = self.described(len(self.config.phases) - 1)
        where = export(self.config, spec, self.main(objective.network), trainer, self._words())
        return f"the model is in {where}: sanakit generate --model {where} PROMPT{self._changed_base()}"

    def _changed_base(self) -> str:
        """Say, as the end of a sentence, if the base model, whose other parts RUN/model has, is not what it was."""
        if fingerprint(self.spec) == self.base_weights:
            return ""
        return (
            f"; {self.config.base_model} was written anew since this command began, and the model has its new text "
            "encoder and autoencoder, which it was not trained with: put the old ones back, and export again with "
            f"--export-step {self.config.steps}"
        )

    @property
    def drawn(self) -> tuple[int, ...]:
        """The numbers of solver steps that previews are drawn with."""
        return (self.config.preview.steps,)

    def _words(self) -> set[str]:
        """Return the words that the model has learnt, if its vocabulary is so small that this must be said."""
        if not is_closed(load_tokenizer(self.trained.tokenizer_folder)):
            return set()
        held = set(held_items(self.pictures, self.config.data.held))
        seen = (item for index, item in enumerate(self.pictures) if index not in held)
        words = {word for caption in captions_of(seen) for word in words_of(caption)}
        if self.config.model.start == "scratch":
            return words
        before = read_words(self.spec)
        return words | before if before else set()  # a base model without a list may know any word

    def described(self, phase: int) -> ModelSpec:
        """Return the model under training, with the network as it is in a phase."""
        config = phase_config(self.network_config, self.config.phases[phase], self.ratio)
        return replace(self.trained, transformer=config)

    @property
    def trained(self) -> ModelSpec:
        """The base model's description, or that of its text encoder as it is trained."""
        return self.spec if self.text is None else self.text.spec


def operations_of(per_sample: Callable[[int, int], float]) -> Callable[[LatentBatch], float]:
    """Return what counts a batch's operations. per_sample: (latent positions, tokens of a caption) -> of a sample."""

    def of(batch: LatentBatch) -> float:
        count, _, height, width = batch.x0.shape
        return float(count * per_sample(height * width, batch.text.mask.shape[1]))

    return of


def export(
    config: TrainConfig, spec: ModelSpec, network: nn.Module, trainer: Trainer, words: Iterable[str] = ()
) -> Path:
    """Write the averaged weights with the other parts of the base model to RUN/model, replacing an earlier export.

    spec: of the model as trained. words: that it has learnt. Every process gathers the weights; the first one writes.
    Returns the folder. Raises OutputError.
    """
    weights = trainer.ema.gathered()
    folder = config.folder / "model"
    if trainer.world.leads:
        write_derived(
            finished(config, spec), folder, transformer_weights(network, weights),
            text_encoder=text_weights(network, weights), words=words, dtype=torch.bfloat16, force=True,
        )  # fmt: skip
    trainer.world.wait()
    return folder


def finished(config: TrainConfig, spec: ModelSpec) -> ModelSpec:
    """Return the description of the trained model: the shift it was trained with, sizes binned if it saw bins."""
    last = config.phases[-1]
    schedule = spec.schedule if last.shift is None else replace(spec.schedule, shift=last.shift)
    bins = last.size in BUCKETS and not config.data.square
    return replace(spec, schedule=schedule, bins=bins)
