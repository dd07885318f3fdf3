"""The task of making a teacher for SANA-Sprint: a flow model gets dense time and qk-norm (arXiv 2503.09641, 3.2).

Both change what the network computes, so it is fine-tuned, by flow matching as ever. Fine-tuning begins where the base
model is, not beside it: the new time embedding is fitted to the old one (`dense_time`), and the norms get the weights
that change queries and keys least (`qk_norm`). Begun with an embedding that reads times it has never seen, the loss
first jumps to that of a network that doesn't know its noise level, and large gradients tear at all layers: those are
the spikes that users of the official recipe reported (NVlabs/Sana issue 318).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sanakit.base.errors import ConfigError
from sanakit.base.precision import Precision
from sanakit.base.text_states import TextStates
from sanakit.flow.path import LinearPath
from sanakit.flow.times import TRAIN_STEPS
from sanakit.training.config import TrainConfig
from sanakit.training.events import Event, Message
from sanakit.training.objectives.flow_matching import draw, model_time
from sanakit.training.parallel import World
from sanakit.training.tasks.dense_time import DENSE_SCALE, fit_dense_time
from sanakit.training.tasks.latents import LatentBatch, LatentData
from sanakit.training.tasks.network import build_network
from sanakit.training.tasks.qk_norm import NormWeights, real_tokens
from sanakit.training.tasks.transformer import TransformerTask
from sanakit.transformer import SanaTransformer, TransformerConfig

_LEVELS = (0.1, 0.35, 0.65, 0.9)
"""Noise levels at which queries and keys are watched, and at which base model and teacher are compared."""

_SAMPLES = 8  # pictures of that, at most


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a conversion has changed.

    lost: share of the time embedding's variance over time that the dense one leaves out; None if it was dense.
    normed: whether norms were added. differences: of the velocities, relative, at each of some noise levels.
    """

    lost: float | None
    normed: bool
    differences: tuple[float, ...]

    def sentences(self) -> Iterator[str]:
        """Say so."""
        if self.lost is not None:
            yield f"dense time: the embedding is fitted to the base model's, without {self.lost:.2%} of its variance"
        if self.normed:
            yield "qk-norm: the weights of the norms are those that change queries and keys least"
        mean, most = sum(self.differences) / len(self.differences), max(self.differences)
        yield f"before training, velocities differ from the base model's by {mean:.1%} (at most {most:.1%})"


class TeacherTask(TransformerTask):
    """See `Task`. Raises ConfigError, DataError or ModelNotFoundError."""

    def __init__(
        self, config: TrainConfig, precision: Precision, world: World, notify: Callable[[str], object]
    ) -> None:
        _check(config)
        super().__init__(config, precision, world, notify)
        self._made: SanaTransformer | None = None

    def wanted_network(self) -> TransformerConfig:
        """Read the base model's, with dense time and qk-norm. Raises ConfigError if it has both."""
        base = super().wanted_network()
        if _is_dense(base) and base.qk_norm:
            raise ConfigError(
                f"base: {self.config.base_model} has dense time and qk-norm already: it can be distilled as it is, "
                "or trained on by task: transformer"
            )
        return replace(base, time_scale=DENSE_SCALE, qk_norm=True)

    def prepare(self) -> Iterator[Event]:
        """Fill the cache, then turn the base model into one with dense time and qk-norm."""
        yield from super().prepare()
        self._made, change = self._converted()
        for text in change.sentences():
            yield Message(step=0, text=text)

    def remarks(self) -> Iterator[tuple[str, str]]:
        """Say what will be changed, and what the base model has already."""
        yield from super().remarks()
        base, most = self.spec.transformer, TRAIN_STEPS * self.spec.transformer.time_scale
        dense = f"the base model reads times of 0 to {most:g}; the teacher will read those of 0 to 1"
        yield "dense time", "the base model has it" if _is_dense(base) else dense
        norm = "the base model has none in its attentions; the teacher will"
        yield "qk-norm", "the base model has it" if base.qk_norm else norm
        if self.config.times.levels is not None:
            levels = self.config.times.levels
            yield (
                "times",
                f"{levels} levels are trained, and dense time is for all there are: times.levels=null",
            )

    def build(self) -> SanaTransformer:
        """Return the converted network, or, for weights of a checkpoint, one of its shape."""
        made = self._made
        if made is None:
            base = build_network(self.config, self.spec, self.world.device)
            made = reshaped(base, self.network_config)
        return made.requires_grad_(True)

    @torch.no_grad()
    def _converted(self) -> tuple[SanaTransformer, Change]:
        base = build_network(self.config, self.spec, self.world.device).requires_grad_(False)
        made, batch = reshaped(base, self.network_config), self._pictures()
        lost = None
        if not _is_dense(base.config):
            lost = fit_dense_time(made.time, TRAIN_STEPS * base.config.time_scale)
        norms = NormWeights(base)
        norms.seen = real_tokens(batch.text.mask)
        if base.config.qk_norm:
            before = [_velocity(base, batch, level) for level in _LEVELS]
        else:
            with norms.watching():
                before = [_velocity(base, batch, level) for level in _LEVELS]
            made.load_state_dict(made.state_dict() | norms.weights(), assign=True)
        for weight in (*made.time.parameters(), *_norm_weights(made)):
            weight.copy_(self.world.tensor_from_lead(weight))  # no rounding may part the processes
        after = [_velocity(made, batch, level) for level in _LEVELS]
        differences = tuple(_relative(one, other) for one, other in zip(after, before, strict=True))
        return made, Change(lost=lost, normed=not base.config.qk_norm, differences=differences)

    def _pictures(self) -> LatentBatch:
        """Return the first pictures of the run, the same for every process."""
        batch = LatentData(self.config, self.pictures, self.cache.cached(), World()).batch(0)
        count, device, text = min(_SAMPLES, len(batch.x0)), self.world.device, batch.text
        assert isinstance(text, TextStates)  # the text encoder is frozen
        text = TextStates(text.states[:count], text.mask[:count]).to(device=device)
        return replace(batch, x0=batch.x0[:count].to(device), text=text, seeds=batch.seeds[:count])


def _check(config: TrainConfig) -> None:
    """Refuse settings that this task does not read. Raises ConfigError."""
    if config.model != type(config.model)():
        raise ConfigError("model: the task teacher begins with the base model as it is; leave it out")
    if config.text.train:
        raise ConfigError("text.train: the task teacher trains the transformer alone; leave it out")


def _is_dense(config: TransformerConfig) -> bool:
    return config.time_scale == DENSE_SCALE


def reshaped(base: SanaTransformer, config: TransformerConfig) -> SanaTransformer:
    """Return a network of another configuration with the weights of `base`, whose time embedding is copied; norms of 1.

    All other weights are shared with `base`.
    """
    with torch.device("meta"):
        made = SanaTransformer(config)
    device = base.patch.weight.device
    added = {
        name: torch.ones(weight.shape, device=device) for name, weight in made.state_dict().items()
    }  # all that is left of it below are the norms
    made.load_state_dict(added | base.state_dict(), assign=True)
    made.time = deepcopy(base.time)
    return made


def _norm_weights(network: SanaTransformer) -> Iterator[Tensor]:
    return (weight for name, weight in network.named_parameters() if ".norm_q." in name or ".norm_k." in name)


def _velocity(network: SanaTransformer, batch: LatentBatch, level: float) -> Tensor:
    """Return what the network predicts for a batch at one noise level, with noise from the samples' own seeds."""
    _, noise = draw(
        batch.seeds, tuple(batch.x0.shape[1:]), lambda count, generator: torch.full((count,), level)
    )
    noise = noise.to(batch.x0)
    time = model_time(network.config, torch.full((1,), level, device=batch.x0.device))
    velocity: Tensor = network(LinearPath().point(batch.x0, noise, level), time, batch.text)
    return velocity


def _relative(found: Tensor, wanted: Tensor) -> float:
    """|found - wanted| / |wanted|."""
    return float(torch.linalg.vector_norm(found - wanted) / torch.linalg.vector_norm(wanted))
