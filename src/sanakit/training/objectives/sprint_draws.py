"""What SANA-Sprint's distillation draws for a batch: angles, noise and guidance scales, from the samples' own seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from sanakit.base.text_states import TextStates
from sanakit.flow.path import TrigPath, angle_from_time, time_from_angle
from sanakit.training.objectives.consistency import angles
from sanakit.training.objectives.sprint_settings import AngleDensity, SprintConfig
from sanakit.training.objectives.trajectory import Trajectory
from sanakit.training.tasks.latents import LatentBatch, NoisyBatch

_NOISE = math.pi / 2  # the angle of pure noise


@dataclass(frozen=True, eq=False)
class Draw:
    """An angle [B] (radians) and noise [B, C, h, w] for every sample."""

    angle: Tensor
    noise: Tensor

    def point(self, x0: Tensor) -> Tensor:
        """x0 [B, C, h, w] with the noise, on the TrigFlow path."""
        return TrigPath().point(x0, self.noise, self.angle)

    def to(self, device: torch.device) -> Draw:
        """Return the same on a device."""
        return Draw(self.angle.to(device), self.noise.to(device))


@dataclass(frozen=True, eq=False, kw_only=True)
class SprintBatch(NoisyBatch):
    """A batch with all that either player may need of it; `t` and `noise` are the consistency loss's.

    Attributes:
        text: states [B, L, D] and mask.
        guidance: scales [B].
        jump: of the pictures that the critic judges.
        real, fake: of pictures before they are judged.
        matched: of the student's pictures before scores are compared.
        path: trajectories that were followed before; None to follow new ones, from these pictures and this noise.
    """

    text: TextStates
    guidance: Tensor
    jump: Draw
    real: Draw
    fake: Draw
    matched: Draw
    path: Trajectory | None = None

    @property
    def flow(self) -> Draw:
        """Angle and noise of the consistency loss."""
        return Draw(angle_from_time(self.t), self.noise)

    def to(self, device: torch.device) -> SprintBatch:
        """Return the same on a device."""
        names = ("x0", "noise", "t", "text", "guidance", "jump", "real", "fake", "matched")
        path = None if self.path is None else self.path.to(device)
        return replace(self, path=path, **{name: getattr(self, name).to(device) for name in names})


def draw(batch: LatentBatch, config: SprintConfig) -> SprintBatch:
    """Draw for every sample from its own seed, whoever's turn it is."""
    drawn = [_Sample.draw(seed, tuple(batch.x0.shape[1:]), config) for seed in batch.seeds]
    known = {field.name: getattr(batch, field.name) for field in fields(LatentBatch)}
    flow = _joined([sample.flow for sample in drawn])
    return SprintBatch(
        **known, t=time_from_angle(flow.angle), noise=flow.noise,
        guidance=torch.tensor([sample.guidance for sample in drawn]),
        jump=_joined([sample.jump for sample in drawn]), real=_joined([sample.real for sample in drawn]),
        fake=_joined([sample.fake for sample in drawn]), matched=_joined([sample.matched for sample in drawn]),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Sample:
    """The draws of one sample, with a first axis of 1."""

    guidance: float
    flow: Draw
    jump: Draw
    real: Draw
    fake: Draw
    matched: Draw

    @classmethod
    def draw(cls, seed: int, shape: tuple[int, ...], config: SprintConfig) -> _Sample:
        generator = torch.Generator().manual_seed(seed)

        def noised(density: AngleDensity) -> Draw:
            normal = torch.randn(1, generator=generator)
            noise = torch.randn((1, *shape), generator=generator)
            return Draw(angles(normal, density.mean, density.std), noise)

        guidance = config.guidance[int(torch.randint(len(config.guidance), (1,), generator=generator))]
        flow, jump = noised(config.times), noised(config.times)
        if config.max_time is not None and float(torch.rand(1, generator=generator)) < config.max_time:
            jump = replace(jump, angle=torch.full_like(jump.angle, _NOISE))
        times = config.critic.times
        return cls(guidance, flow, jump, noised(times), noised(times), noised(config.distribution.times))


def _joined(draws: Sequence[Draw]) -> Draw:
    return Draw(torch.cat([draw.angle for draw in draws]), torch.cat([draw.noise for draw in draws]))
