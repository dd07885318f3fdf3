"""What the turns of a distillation cost: operations of a sample, and bytes that it keeps for its backward pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from sanakit.training.cost import kept_bytes, transformer_pass
from sanakit.training.objectives.ladd import head_operations
from sanakit.training.objectives.sprint_networks import make_critic
from sanakit.training.objectives.sprint_settings import SprintConfig
from sanakit.transformer import TransformerConfig

_STEP = 3  # passes that a pass with its backward pass takes


@dataclass(frozen=True)
class SprintCost:
    """Costs by the size of latents and the tokens that are read.

    settings: of the run. teacher, student: their networks; the score network is the teacher's. exact: the student is
    differentiated exactly. trained: (positions, words) -> operations of a sample's pass with its backward pass. kept:
    share of activations that is not computed again.
    """

    settings: SprintConfig
    teacher: TransformerConfig
    student: TransformerConfig
    exact: bool
    trained: Callable[[int, int], float]
    kept: float

    def mean_operations(self, positions: int, words: int) -> float:
        """Operations of a sample in a step, over the turns of all players."""
        others = self.settings.turns
        student, rest = (self.operations(students, positions, words) for students in (True, False))
        return (student + others * rest) / (1 + others)

    def operations(self, students: bool, positions: int, words: int) -> float:
        """Operations of a sample in a turn of the student, or of the others."""
        turn = self._student_turn if students else self._others_turn
        return turn(positions, words)

    def guided(self, positions: int, words: int) -> float:
        """Operations of the teacher's guided velocity at one point."""
        return 2 * self._once(positions, words)

    def trajectory_bytes(self, side: int) -> int:
        """Bytes of a trajectory in the cache: its points and its end, float16."""
        points = 1 + math.ceil(self.settings.trajectory.mean_steps)
        return 2 * points * self.student.latent_channels * side**2

    def activations(self, side: int, words: int) -> float:
        """Bytes of a sample that a turn of the student's keeps; the others' turns keep less."""
        once = kept_bytes(partial(transformer_pass, self.student, side, words))
        kept = self.kept * self._branches * once
        if not self.settings.adversarial:
            return kept
        teacher = kept_bytes(partial(transformer_pass, self.teacher, side, words, frozen=True))
        with torch.device("meta"):
            critic = make_critic(self.settings.critic, self.student.width, self.teacher.depth)
            tokens = torch.empty(1, side**2, self.student.width, requires_grad=True)
        heads = kept_bytes(lambda: critic([tokens] * len(self._judged), frozen=True))
        return kept + self.kept * self._judged_share * teacher + heads

    def _student_turn(self, positions: int, words: int) -> float:
        settings, once, guided = self.settings, self._once(positions, words), self.guided(positions, words)
        operations = _STEP * once * self._branches
        if settings.consistency:
            operations += (2 + (3 if self.exact else 2)) * once
        if settings.adversarial:
            # Half of a backward pass through what is judged is as much again.
            operations += 2 * (self._judged_share * once + self._heads(positions))
        if settings.trajectory.weight and not settings.trajectory.stored:
            operations += settings.trajectory.mean_steps * guided
        if settings.distribution.weight:
            operations += (1 + settings.distribution.simulated) * once + guided
        return operations

    def _others_turn(self, positions: int, words: int) -> float:
        settings, once, operations = self.settings, self._once(positions, words), 0.0
        if settings.adversarial:
            pictures = 2 + settings.critic.misaligned
            operations += once + pictures * (self._judged_share * once + _STEP * self._heads(positions))
        if settings.distribution.weight:
            operations += (1 + settings.distribution.simulated + _STEP) * once
        return operations

    def _once(self, positions: int, words: int) -> float:
        """Operations of one pass of a sample."""
        return self.trained(positions, words) / _STEP

    def _heads(self, positions: int) -> float:
        """Operations of the critic's heads."""
        tokens = positions // self.teacher.patch_size**2
        return len(self._judged) * tokens * head_operations(self.student.width)

    @property
    def _branches(self) -> int:
        """The points of each sample that a student's turn differentiates."""
        settings = self.settings
        apart = settings.max_time is not None or not settings.consistency
        published = (settings.consistency > 0) + (settings.adversarial > 0 and apart)
        published += settings.distribution.weight > 0
        return published + (settings.trajectory.points if settings.trajectory.weight else 0)

    @property
    def _judged(self) -> tuple[int, ...]:
        """The numbers of the teacher's blocks whose tokens are judged."""
        return self.settings.critic.numbers(self.teacher.depth)

    @property
    def _judged_share(self) -> float:
        """The share of the teacher's blocks up to the last one that is judged."""
        return (self._judged[-1] + 1) / self.teacher.depth
