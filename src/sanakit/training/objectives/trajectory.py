"""Trajectories: where the teacher's own steps lead, and a student that is to jump there from every point on the way.

    noise or a noisy picture ──▶ teacher: some guided steps of DPM-Solver++ ──▶ points x_0, x_1, ... at falling levels
                                                                            └──▶ their common end
    x_k ──▶ student ──▶ x0 ──▶ its distance from the end

A consistency loss says the same of neighbouring points alone, and relies on the student itself for the rest of the way.
Here the end is computed, which takes two passes of the teacher a step, and nothing can feed back.

Sources: Luhman and Luhman 2021, "Knowledge distillation in iterative generative models", arXiv:2101.02388 (from noise
alone); the distance is the pseudo-Huber of Song and Dhariwal 2023, arXiv:2310.14189, section 3.3.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sanakit.base.text_states import TextStates
from sanakit.flow.dpm import dpm
from sanakit.flow.path import LinearPath, angle_from_time, broadcast_time, linear_scale
from sanakit.flow.sampling import drive
from sanakit.flow.times import ShiftedTimes
from sanakit.training.objectives.sprint_settings import TrajectoryConfig

_FIRST = 0.999
"""Where samplers begin, before the shift: what they start from there is noise alone."""
_ROUND = 0.03
"""Distance below which the loss is square: what the network's bf16 blurs is not worth a full step."""

Velocity = Callable[[Tensor, Tensor, TextStates, Tensor], Tensor]
"""(x [B, ...] of the linear path, its times [B] in 0..1, text, scales [B]) -> the teacher's guided velocity there."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Points of the TrigFlow path that lead to one end, of each of B samples.

    points: [B, C, h, w] each. angles: [B] radians, of each point. end: [B, C, h, w], clean samples. text: what the
    teacher read, [B, L, D] and mask. guidance: scales [B] that it was guided by.
    """

    points: list[Tensor]
    angles: list[Tensor]
    end: Tensor
    text: TextStates
    guidance: Tensor

    def to(self, device: torch.device) -> Trajectory:
        """Return the same on a device."""
        points, angles = ([each.to(device) for each in kind] for kind in (self.points, self.angles))
        return Trajectory(points, angles, self.end.to(device), self.text.to(device), self.guidance.to(device))


@dataclass(frozen=True)
class Levels:
    """Noise levels of the trajectories of a batch.

    levels: falling ones, the last is 0. learnt: numbers of those that the student is asked at. pure: begun at noise
    without a picture.
    """

    levels: tuple[float, ...]
    learnt: tuple[int, ...]
    pure: bool

    @classmethod
    def draw(cls, number: int, settings: TrajectoryConfig, shift: float) -> Levels:
        """Draw them from the number of a batch, so that all processes and micro-batches share them.

        Steps are as long as those of `settings.steps` from noise: from a noisy picture there are fewer.
        """
        drawn = random.Random(number)
        share = 1.0 if drawn.random() < settings.noise else drawn.random()
        steps = max(1, math.ceil(settings.steps * share))
        times = ShiftedTimes(shift)
        levels = [times.shifted(_FIRST * share * (1 - k / steps)) for k in range(steps)]
        others = drawn.sample(range(1, steps), min(settings.points, steps) - 1)
        return cls((*levels, 0.0), (0, *sorted(others)), pure=share == 1.0)

    def start(self, x0: Tensor, noise: Tensor) -> Tensor:
        """Return the points of the linear path that trajectories begin at, [B, C, h, w]."""
        return noise if self.pure else LinearPath().point(x0, noise, self.levels[0])


@torch.no_grad()
def follow(x: Tensor, levels: Levels, velocity: Velocity, text: TextStates, guidance: Tensor) -> Trajectory:
    """Follow the teacher from points x [B, C, h, w] of the linear path at the first level."""
    learnt: list[Tensor] = []

    def denoise(x: Tensor, level: float, step: int) -> Tensor:
        if step in levels.learnt:
            learnt.append(x)
        return velocity(x, x.new_full((len(x),), level), text, guidance)

    *_, last = drive(dpm(x, levels.levels), denoise)
    times = [x.new_full((len(x),), levels.levels[number]) for number in levels.learnt]
    points = [each / broadcast_time(linear_scale(s), each) for each, s in zip(learnt, times, strict=True)]
    return Trajectory(points, [angle_from_time(s) for s in times], last.x, text, guidance)


def end_distance(x0: Tensor, end: Tensor) -> Tensor:
    """Return the mean over samples of sqrt(d^2 + c^2) - c, a scalar; d^2 is the mean square of x0 - end."""
    square = (x0 - end).square().flatten(1).mean(1)
    return ((square + _ROUND**2).sqrt() - _ROUND).mean()
