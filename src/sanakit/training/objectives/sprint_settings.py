"""The settings of SANA-Sprint's distillation (arXiv 2503.09641); published values are the defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from sanakit.base.bounds import Bounds, Count, Share, Weight
from sanakit.base.errors import ConfigError
from sanakit.training.optim.settings import OptimizerConfig

Tangent = Literal["auto", "exact", "difference"]
"""How the derivative of the student along its flow is taken."""


@dataclass(frozen=True, kw_only=True)
class AngleDensity:
    """Angles of the TrigFlow path: atan(exp(N(mean, std^2)) / 0.5), 0 for data and pi/2 for noise.

    Attributes:
        mean, std: of the logarithm of the noise level.
    """

    mean: Annotated[float, Bounds(least=-20, most=20)] = 0.2
    std: Annotated[float, Bounds(least=0, most=20)] = 1.6


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """The critic of LADD (arXiv 2403.12015): heads that judge tokens of the frozen teacher.

    Attributes:
        blocks: of the teacher, by depth: 0.4 is the block after four tenths of them, number 8 of 20.
        norm: of the heads: "batch" over the samples of a virtual batch, "group" over groups of channels of each sample.
        virtual_batch: samples that a batch norm sees together, at most.
        misaligned: pictures with the captions of their neighbours count as fakes, too; micro-batches of one have none.
        times: noise that is added to pictures before they are judged.
        r1: weight of the penalty on the gradient of real pictures' scores; 0 for none.
        optimizer: of the critic, whose gradient is clipped by itself; None for one like the student's.
    """

    blocks: tuple[Annotated[float, Bounds(least=0, below=1)], ...] = (0.1, 0.4, 0.7, 0.95)
    norm: Literal["batch", "group"] = "batch"
    virtual_batch: Annotated[int, Bounds(least=1, most=1024)] = 8
    misaligned: bool = True
    times: AngleDensity = field(default_factory=lambda: AngleDensity(mean=-0.6, std=1.0))
    r1: Weight = 0.0
    optimizer: OptimizerConfig | None = None

    def __post_init__(self) -> None:
        if not self.blocks:
            raise ConfigError("sprint.critic.blocks is empty: name one block at least, such as 0.5")

    def numbers(self, depth: int) -> tuple[int, ...]:
        """Return the numbers of the blocks in a network of `depth` of them, each once."""
        return tuple(sorted({int(share * depth + 1e-9) for share in self.blocks}))


@dataclass(frozen=True, kw_only=True)
class TrajectoryConfig:
    """Regression on trajectories of the teacher: the student jumps from points on the way to where they end.

    Attributes:
        weight: of the loss; 0 for none.
        steps: of the teacher from noise to the end; each takes two passes.
        points: of each trajectory that the student is asked at, the first among them.
        noise: share of the trajectories that begin at pure noise; the others begin at noisy pictures, and take as many
            steps as are left there.
        stored: trajectories that are followed before the first step and kept in the cache; every step takes some of
            them, so each serves many times. 0 follows new ones in every step.
    """

    weight: Weight = 0.0
    steps: Annotated[int, Bounds(least=1, most=1000)] = 10
    points: Annotated[int, Bounds(least=1, most=1000)] = 3
    noise: Share = 0.5
    stored: Count = 0

    @property
    def mean_steps(self) -> float:
        """Steps of a trajectory on average: those from noisy pictures begin anywhere."""
        return self.noise * self.steps + (1 - self.noise) * (self.steps + 1) / 2

    def __post_init__(self) -> None:
        if self.points > self.steps:
            raise ConfigError(
                f"sprint.trajectory.points is {self.points}, and a trajectory of {self.steps} steps has no more points "
                f"than that; take at most {self.steps} or more steps"
            )


@dataclass(frozen=True, kw_only=True)
class DistributionConfig:
    """Distribution matching (DMD, arXiv 2311.18828): the student draws what its teacher would as likely draw.

    Attributes:
        weight: of the loss; 0 for none.
        guidance: the teacher's classifier-free scale where its pictures are compared with the student's; null for each
            sample's own. Less of it keeps more kinds of pictures.
        simulated: share of the student's turns in which it draws in two steps, the first without gradients.
        times: noise that is added to its pictures before the scores are compared.
        turns: of the score network after each of the student's.
        warmup: steps at the beginning in which the student stands still, so that the score network knows it first.
        optimizer: of the score network, whose gradient is clipped by itself; None for one like the student's.
    """

    weight: Weight = 0.0
    guidance: Annotated[float, Bounds(least=0, most=1000)] | None = None
    simulated: Share = 0.5
    times: AngleDensity = field(default_factory=lambda: AngleDensity(mean=0.0, std=1.6))
    turns: Annotated[int, Bounds(least=1, most=100)] = 5
    warmup: Count = 0
    optimizer: OptimizerConfig | None = None


@dataclass(frozen=True, kw_only=True)
class SprintConfig:
    """Settings that only the task "sprint" reads.

    Attributes:
        student: a model of few steps that the student begins as, to distil it further; None for the teacher's weights.
        consistency: weight of the consistency loss (sCM); 0 for the critic alone.
        adversarial: weight of the critic's judgement (LADD); 0 for no critic.
        trajectory: regression on the teacher's own steps, beside the two or in place of them.
        distribution: the student's pictures become as likely as the teacher's, beside the others or in place of them.
        guidance: scales of the teacher's classifier-free guidance, of which each sample draws one.
        guidance_input: the student reads the scale; otherwise it is trained for a single one.
        times: of the student.
        tangent: how the student's derivative is taken: "exact" by forward-mode differentiation, "difference" by central
            differences; "auto" is exact where the network allows.
        warmup: steps over which the derivative comes in; before that the student learns the teacher's velocity alone.
        norm_constant: added to the norm of the direction that the student is moved in, as published for data of
            deviation 0.5.
        norm: of that direction: "sum" over channels and positions, as published, so that it grows with the size of
            pictures, or their "mean".
        least_sigma: noise level below which the weight of the loss no longer grows; as published it had no bound.
        adaptive: a layer learns the loss at each time and guidance, and the loss is divided by it.
        max_time: share of pure noise among the samples that the critic judges, which the student is then asked for in a
            pass of their own; null judges those of the consistency loss.
        critic: who judges.
    """

    student: Annotated[str, Bounds()] | None = None
    consistency: Weight = 1.0
    adversarial: Weight = 0.5
    trajectory: TrajectoryConfig = field(default_factory=TrajectoryConfig)
    distribution: DistributionConfig = field(default_factory=DistributionConfig)
    guidance: tuple[Annotated[float, Bounds(least=0, most=1000)], ...] = (4.0, 4.5, 5.0)
    guidance_input: bool = True
    times: AngleDensity = field(default_factory=AngleDensity)
    tangent: Tangent = "auto"
    warmup: Count = 4000
    norm_constant: Annotated[float, Bounds(above=0, most=10**6)] = 0.1
    norm: Literal["sum", "mean"] = "sum"
    least_sigma: Annotated[float, Bounds(above=0, most=100)] = 0.01
    adaptive: bool = True
    max_time: Share | None = 0.5
    critic: CriticConfig = field(default_factory=CriticConfig)

    def __post_init__(self) -> None:
        if not (self.consistency or self.adversarial or self.trajectory.weight or self.distribution.weight):
            raise ConfigError(
                "sprint.consistency, sprint.adversarial, sprint.trajectory.weight and sprint.distribution.weight are "
                "all 0: nothing is learnt"
            )
        if not self.guidance:
            raise ConfigError("sprint.guidance is empty: name one scale at least, such as 4.5")
        if not self.guidance_input and len(self.guidance) > 1:
            raise ConfigError(
                f"sprint.guidance has {len(self.guidance)} scales, and the student is not told which "
                "(sprint.guidance_input=false): leave one of them"
            )

    @property
    def turns(self) -> int:
        """Steps of the other players after each of the student's; 0 if there are none."""
        return self.distribution.turns if self.distribution.weight else int(self.adversarial > 0)

    def is_students(self, step: int) -> bool:
        """Return whether a step is the student's; the others are the critic's and the score network's."""
        still = self.distribution.warmup if self.distribution.weight else 0
        return step >= still and step % (1 + self.turns) == 0
