"""The task of distilling a flow model into one of few steps, as SANA-Sprint was (arXiv 2503.09641)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from functools import cached_property
from typing import Any, cast

import torch
from torch import nn

from sanakit.base.errors import ConfigError
from sanakit.base.precision import Precision
from sanakit.base.seeds import hash_seed
from sanakit.base.text_states import TextStates
from sanakit.flow import Schedule
from sanakit.flow.times import TRAIN_STEPS
from sanakit.layers.embed import ScalarEmbed
from sanakit.pipeline.shapes import transformer_parameters
from sanakit.training.config import TrainConfig
from sanakit.training.edits import edit_blocks
from sanakit.training.events import Event
from sanakit.training.objectives.ladd import Critic
from sanakit.training.objectives.objective import Objective, choose_objective
from sanakit.training.objectives.sprint import SprintDistillation
from sanakit.training.objectives.sprint_draws import SprintBatch
from sanakit.training.objectives.sprint_networks import SprintNetwork, Student, Teacher, make_critic
from sanakit.training.parallel import World
from sanakit.training.tasks.dense_time import fit_dense_time
from sanakit.training.tasks.network import load_base
from sanakit.training.tasks.sprint_cost import SprintCost
from sanakit.training.tasks.task import Workload
from sanakit.training.tasks.trajectory_cache import TrajectoryCache
from sanakit.training.tasks.transformer import TransformerTask
from sanakit.transformer import SanaTransformer, TransformerConfig
from sanakit.weights import ModelSpec, read_model_spec, resolve

OBJECTIVES = ("sprint",)
STEPS = (1, 2, 4)
"""Steps that previews are drawn with: what the finished model is for."""

_UNREAD = ("model", "text", "times")
_STD = 0.02  # of the guidance embedding's first layer, as of the other embeddings


class SprintTask(TransformerTask):
    """See `Task`. The base model is the teacher. Raises ConfigError, DataError or ModelNotFoundError."""

    def __init__(
        self, config: TrainConfig, precision: Precision, world: World, notify: Callable[[str], object]
    ) -> None:
        _check(config)
        self.settings = config.sprint
        super().__init__(config, precision, world, notify)
        if self.spec.dialect.null_mask == "prompt":
            raise ConfigError(
                f"base: {config.base_model} is in the official dialect, whose empty prompt has the mask of the "
                "caption; the task sprint needs one with a mask of its own"
            )
        self._begun = _read_student(self.settings.student, self.network_config, notify)
        self.trajectories = TrajectoryCache(config, self.spec, precision, self.pictures)

    def prepare(self) -> Iterator[Event]:
        """Fill the cache with latents and text states, then with trajectories."""
        yield from super().prepare()
        if self.trajectories.wanted:
            self.world.wait()
            yield from self.trajectories.fill(self.world, self.cache.cached(), self._teacher)

    def drawing(self, objective: Objective) -> Callable[[int], Any]:
        """As `TransformerTask.drawing`, with stored trajectories beside the pictures."""
        plain = super().drawing(objective)
        if not self.trajectories.wanted:
            return plain
        stored = self.trajectories.stored(self.data.cached_states)

        def draw(number: int) -> SprintBatch:
            batch: SprintBatch = plain(number)
            if not self.settings.is_students(batch.step):
                return batch
            shared = hash_seed("trajectories", self.config.seed, batch.step)
            return replace(batch, path=stored[batch.phase].draw(shared, batch.seeds))

        return draw

    def wanted_network(self) -> TransformerConfig:
        """Return the student: as the teacher, with guidance as an input, and times in 0..1."""
        choose_objective(OBJECTIVES, self.config.objective)
        return replace(self.spec.transformer, guidance_embed=True, time_scale=1.0)

    @property
    def trained(self) -> ModelSpec:
        """A Sprint model with the other parts of the base model."""
        schedule = Schedule(kind="scm")
        return replace(
            self.spec, kind="sprint", schedule=schedule, transformer=self.network_config, pag=False
        )

    @property
    def drawn(self) -> tuple[int, ...]:
        """Those that the finished model is for."""
        return STEPS

    @property
    def exact(self) -> bool:
        """Whether the student is differentiated exactly."""
        wanted = self.settings.tangent
        return wanted == "exact" or (wanted == "auto" and not self.config.compile)

    def objective(self) -> Objective:
        """Build student, critic and score network, float32, and the frozen teacher."""
        settings = self.settings
        torch.manual_seed(self.config.seed)
        student = Student(self._student(), adaptive=settings.adaptive and settings.consistency > 0)
        critic = self._critic() if settings.adversarial else None
        network = SprintNetwork(student, critic, self._score() if settings.distribution.weight else None)
        return SprintDistillation(
            self.config, network.to(self.world.device), self._teacher(), self.ratio, self.exact,
            self.spec.schedule.shift,
        )  # fmt: skip

    def _student(self) -> SanaTransformer:
        """Return the student's first weights: those of the model that it begins as, or the teacher's."""
        if self._begun is None:
            student = self._from_teacher()
        else:
            student = load_base(self._begun, torch.float32, torch.device("cpu"))
        student.requires_grad_(True)
        cast(ScalarEmbed, student.guidance).requires_grad_(self.settings.guidance_input)
        return student

    def _from_teacher(self) -> SanaTransformer:
        """Return the teacher's weights with a guidance embedding that says nothing yet."""
        teacher = load_base(self.spec, torch.float32, torch.device("cpu"))
        return student_of(teacher, self.network_config)

    def _critic(self) -> Critic:
        """Heads for the blocks of the config."""
        return make_critic(self.settings.critic, self.network_config.width, self.spec.transformer.depth)

    def _score(self) -> SanaTransformer:
        """Return the score network, which begins as the teacher."""
        model = load_base(self.spec, torch.float32, self.world.device).requires_grad_(True)
        edit_blocks(
            model.blocks, self.world.device, every=self.config.recompute, compiled=self.config.compile
        )
        return model

    def _teacher(self) -> Teacher:
        """Return the base model as it is, in the dtype of the computation; every process holds it whole."""
        model = load_base(self.spec, self.precision.dtype, self.world.device)
        edit_blocks(
            model.blocks, self.world.device, every=self.config.recompute, compiled=self.config.compile
        )
        return Teacher(model, self._null, self._judged)

    def _null(self) -> TextStates:
        """States of the empty prompt, [1, L, D]."""
        return self._empty

    @cached_property
    def _empty(self) -> TextStates:
        states = self.cache.cached().states("").float()
        return TextStates(states[None], torch.ones(1, len(states), dtype=torch.bool))

    @cached_property
    def _judged(self) -> tuple[int, ...]:
        """The numbers of the teacher's blocks whose tokens are judged."""
        return self.settings.critic.numbers(self.spec.transformer.depth)

    def workload(self) -> Workload:
        """As `Task.workload`: the mean of the student's steps and the critic's, and the most that either keeps."""
        config, work = self.config, super().workload()
        with torch.device("meta"):
            heads = self._critic() if self.settings.adversarial else nn.Module()
            critic = sum(p.numel() for p in heads.parameters())
        teacher = transformer_parameters(self.spec.transformer)
        others = critic + (teacher if self.settings.distribution.weight else 0)
        wanted, lacking = self.trajectories.wanted, len(self.trajectories.missing())
        cost, positions, words = self._cost_of_turns, self.side**2, self.words
        followed = lacking * self.settings.trajectory.mean_steps * cost.guided(positions, words)
        return replace(
            work, network=f"{config.base_model} into a model of few steps", parameters=work.parameters + others,
            trained=work.parameters + others, unaveraged=others, frozen=teacher * self.precision.dtype.itemsize,
            operations=config.batch * cost.mean_operations(positions, words),
            activations=int(self.samples * cost.activations(self.side, words)),
            followed=wanted - lacking, follows=wanted,
            cache_operations=work.cache_operations + followed,
            cache_bytes=work.cache_bytes + lacking * cost.trajectory_bytes(self.side),
        )  # fmt: skip

    @cached_property
    def _cost_of_turns(self) -> SprintCost:
        return SprintCost(
            self.settings,
            self.spec.transformer,
            self.network_config,
            self.exact,
            self._per_sample,
            self._kept(),
        )

    def operations(self) -> Callable[[Any], float]:
        """Count by whose turn it is, the size of the latents and the tokens that are read."""

        def of(batch: SprintBatch) -> float:
            count, _, height, width = batch.x0.shape
            students = self.settings.is_students(batch.step)
            words = batch.text.mask.shape[1]
            return float(count * self._cost_of_turns.operations(students, height * width, words))

        return of

    def remarks(self) -> Iterator[tuple[str, str]]:
        """Say what the student begins with, and how it is differentiated."""
        yield from super().remarks()
        if self._begun is not None:
            yield "student", f"begins as {self.settings.student}"
        elif (most := pure_noise(self.spec.transformer)) != 1:
            text = (
                f"the base model's go to {most:g}, a Sprint model's to 1: the student's embedding is fitted"
            )
            yield "times", text
        if not self.spec.transformer.qk_norm:
            text = (
                "the base model's attentions have none; the published teacher got one first, to stay stable"
            )
            yield "qk-norm", text
        if self.settings.adversarial and self.settings.critic.misaligned and self.samples == 1:
            yield "critic", "a micro-batch of one picture has no misaligned pair"
        if self.settings.consistency:
            how = "exact, by forward-mode differentiation" if self.exact else "by central differences"
            yield "derivative", how
        if (matched := self.settings.distribution).weight:
            often = "once" if matched.turns == 1 else f"{matched.turns} times"
            text = f"a score network that begins as the teacher moves {often} after each step of the student"
            yield (
                "distribution",
                text + (f", and {matched.warmup} before the first" if matched.warmup else ""),
            )
        if (path := self.settings.trajectory).weight:
            text = f"of {path.steps} guided steps of the teacher; the student is asked at {path.points} points of each"
            if path.stored:
                text += f", of which {path.stored:,} are stored"
            yield "trajectory", text

    def main(self, network: nn.Module) -> nn.Module:
        """Return the student: the critic has no average, and is not exported."""
        return cast(SprintNetwork, network).student

    def parts(self, network: nn.Module) -> Sequence[nn.Module]:
        """Return the critic's heads and the score network's blocks, and the players: each is called by itself."""
        three = cast(SprintNetwork, network)
        inner = [] if three.critic is None else list(three.critic.heads)
        inner += [] if three.score is None else list(three.score.blocks)
        players = (three.student, three.critic, three.score)
        return [*inner, *(player for player in players if player is not None)]


def pure_noise(config: TransformerConfig) -> float:
    """Return the number that a network's time embedding reads at pure noise."""
    return float(TRAIN_STEPS * config.time_scale)


def student_of(teacher: SanaTransformer, config: TransformerConfig) -> SanaTransformer:
    """Make a student of a teacher's weights, float32 on the CPU: its guidance embedding says nothing yet.

    config: the student's, of the same shape, with `guidance_embed` and times in 0..1. The teacher is used up: its time
    embedding is fitted to those times, and the student has its tensors.
    """
    most = pure_noise(teacher.config)
    if most != config.time_scale:
        fit_dense_time(teacher.time, most)
    guidance = ScalarEmbed(config.width)
    nn.init.normal_(guidance.input.weight, std=_STD)
    nn.init.zeros_(guidance.output.weight)
    nn.init.zeros_(guidance.output.bias)
    with torch.device("meta"):
        student = SanaTransformer(config)
    added = {f"guidance.{name}": weight for name, weight in guidance.state_dict().items()}
    student.load_state_dict(teacher.state_dict() | added, assign=True)
    return student


def _read_student(
    name: str | None, wanted: TransformerConfig, notify: Callable[[str], object]
) -> ModelSpec | None:
    """Read the model that the student begins as, if one is named.

    Raises ConfigError if it is no model of few steps with the network that is wanted; ModelNotFoundError, WeightsError.
    """
    if name is None:
        return None
    found = read_model_spec(resolve(name, announce=notify))
    if found.kind != "sprint":
        raise ConfigError(
            f"sprint.student: {name} is a {found.kind} model; take a model of few steps, or leave it out"
        )
    for key in (each.name for each in fields(wanted)):
        own, asked = getattr(found.transformer, key), getattr(wanted, key)
        if own != asked:
            raise ConfigError(
                f"sprint.student: {name} has {key} {own}, and the teacher asks for {asked}: take a student of this "
                "teacher"
            )
    return found


def _check(config: TrainConfig) -> None:
    """Refuse settings that this task does not read. Raises ConfigError."""
    usual = TrainConfig(folder=config.folder, phases=config.phases, data=config.data)
    matched = config.sprint.distribution
    if matched.weight and matched.warmup >= config.steps:
        raise ConfigError(
            f"sprint.distribution.warmup is {matched.warmup} and the run has {config.steps} steps: the student would "
            "never move; give it fewer or the run more"
        )
    unread = [name for name in _UNREAD if getattr(config, name) != getattr(usual, name)]
    unread += ["preview.steps"] if config.preview.steps != usual.preview.steps else []
    unread += [
        f"phases[{number}].shift" for number, phase in enumerate(config.phases) if phase.shift is not None
    ]
    if unread:
        raise ConfigError(
            f"{unread[0]}: the task sprint has no such setting, for the student begins as the base model and draws "
            "its own times; leave it out"
        )
