"""The networks of SANA-Sprint's distillation: the student, what a checkpoint keeps, and the frozen teacher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from sanakit.base.text_states import TextStates
from sanakit.flow.path import broadcast_time, trig_from_velocity
from sanakit.flow.times import TRAIN_STEPS
from sanakit.training.objectives.consistency import linear_point
from sanakit.training.objectives.ladd import ChannelGroupNorm, Critic, LocalBatchNorm
from sanakit.training.objectives.sprint_settings import CriticConfig
from sanakit.transformer import Positions, SanaTransformer


class Student(nn.Module):
    """The transformer that is distilled, and a layer that learns how large the loss usually is.

    That layer reads the embedding of time and guidance. It is for training alone, and starts at zero.
    """

    def __init__(self, transformer: SanaTransformer, adaptive: bool) -> None:
        super().__init__()
        self.transformer = transformer
        self.logvar_linear = nn.Linear(transformer.config.width, 1) if adaptive else None
        if self.logvar_linear is not None:
            nn.init.zeros_(self.logvar_linear.weight)
            nn.init.zeros_(self.logvar_linear.bias)

    def forward(
        self, x: Tensor, angle: Tensor, text: TextStates, guidance: Tensor, positions: Positions | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Velocity F [B, C, h, w] float32 at points x of the TrigFlow path, and the logarithm of the usual loss [B].

        The second is None without the layer. angle, guidance: [B].
        """
        linear, s = linear_point(x, angle)
        velocity: Tensor = self.transformer(linear, s, text, guidance, positions=positions)
        trig = trig_from_velocity(linear, velocity.float(), s)
        if self.logvar_linear is None:
            return trig, None
        usual: Tensor = self.logvar_linear(self.transformer.embed_time(s, guidance))
        return trig, usual.float().sum(1)  # of one: FSDP wants no views


def make_critic(wanted: CriticConfig, width: int, depth: int) -> Critic:
    """Return the heads for a teacher of a width and a depth."""
    norm = partial(LocalBatchNorm, size=wanted.virtual_batch) if wanted.norm == "batch" else ChannelGroupNorm
    return Critic(width, len(wanted.numbers(depth)), norm)


class SprintNetwork(nn.Module):
    """What a checkpoint keeps: the student, and the critic's heads and the score network if there are any.

    score: of the student's own pictures; a flow model that began as the teacher.
    """

    def __init__(self, student: Student, critic: Critic | None, score: SanaTransformer | None = None) -> None:
        super().__init__()
        self.student = student
        self.critic = critic
        self.score = score


class Teacher:
    """The frozen flow model: the student follows its velocity, and the critic's heads stand on its tokens.

    null: gives the states of the empty prompt [1, L, D]; asked when they are needed. blocks: numbers of those whose
    tokens are judged.
    """

    def __init__(
        self, transformer: SanaTransformer, null: Callable[[], TextStates], blocks: Sequence[int]
    ) -> None:
        self.transformer = transformer.eval().requires_grad_(False)
        self.null, self.blocks = null, tuple(blocks)

    @torch.no_grad()
    def velocity(
        self, x: Tensor, angle: Tensor, text: TextStates, scale: Tensor, positions: Positions | None = None
    ) -> Tensor:
        """Its velocity F [B, C, h, w] float32 at points of the TrigFlow path, guided by scales [B]."""
        linear, s = linear_point(x, angle)
        return trig_from_velocity(linear, self.guided(linear, s, text, scale, positions), s)

    @torch.no_grad()
    def guided(
        self, x: Tensor, s: Tensor, text: TextStates, scale: Tensor, positions: Positions | None = None
    ) -> Tensor:
        """Its velocity [B, C, h, w] float32 at points of the linear path and times s [B], guided by scales [B]."""
        both = TextStates.join([self.null().to(x.device).repeat(len(x)), text])
        velocity: Tensor = self.transformer(
            x.repeat(2, 1, 1, 1), TRAIN_STEPS * s.repeat(2), both, positions=positions
        )
        uncond, cond = velocity.float().chunk(2)
        return uncond + broadcast_time(scale, cond) * (cond - uncond)

    def features(
        self, x: Tensor, angle: Tensor, text: TextStates, positions: Positions | None = None
    ) -> list[Tensor]:
        """Tokens [B, N, D] after the blocks that are judged, with gradients for x."""
        linear, s = linear_point(x, angle)
        return self.transformer.features(linear, TRAIN_STEPS * s, text, self.blocks, positions)
