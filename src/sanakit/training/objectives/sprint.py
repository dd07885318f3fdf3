"""SANA-Sprint (arXiv 2503.09641): a flow model becomes one of few steps, by consistency and by a critic.

The student learns to jump from any noise level to the picture: along the trajectories of its frozen teacher (sCM,
`consistency`), and to pictures that a critic takes for real (LADD, `ladd`). They play in turn: the student moves in the
even steps of a run, the critic in the odd ones; without a critic the student moves in all. Beside or in place of the
published losses it may learn where the teacher's own steps end (`trajectory`), and to draw pictures as likely as the
teacher's (`distribution`), which a score network of its own pictures tells; that one moves when the critic does.

Letters: B samples, C latent channels, h/w latent position, N tokens, D width.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from sanakit.base.seeds import hash_seed
from sanakit.base.text_states import TextStates
from sanakit.flow.path import LinearPath, TrigPath, x0_from_trig, x0_from_velocity
from sanakit.flow.times import TRAIN_STEPS
from sanakit.training.config import TrainConfig
from sanakit.training.objectives.adversarial import hinge_discriminator, hinge_generator
from sanakit.training.objectives.consistency import (
    consistency_loss,
    difference_tangent,
    direction,
    exact_tangent,
    linear_point,
    normalised,
    weights,
)
from sanakit.training.objectives.distribution import matching_loss
from sanakit.training.objectives.flow_matching import phase_config
from sanakit.training.objectives.ladd import Critic, gradient_penalty
from sanakit.training.objectives.sprint_draws import SprintBatch, draw
from sanakit.training.objectives.sprint_networks import SprintNetwork, Teacher
from sanakit.training.objectives.trajectory import Levels, Trajectory, end_distance, follow
from sanakit.training.objectives.velocity import velocity
from sanakit.training.players import Player, make_player
from sanakit.training.tasks.latents import LatentBatch
from sanakit.transformer import Positions

_SECOND = (0.6, 1.4)
"""Angles at which a second step begins: those of two to four published steps lie between."""


class SprintDistillation:
    """The losses of a student and its critic; see `Objective`.

    ratio: pixels per latent position. exact: the student's derivative is taken by forward-mode differentiation. shift:
    of the teacher's times, for its trajectories.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: SprintNetwork,
        teacher: Teacher,
        ratio: int,
        exact: bool,
        shift: float,
    ) -> None:
        self.config, self.settings, self.ratio = config, config.sprint, ratio
        self.exact, self.shift = exact, shift
        self.network: nn.Module = network
        self.student, self.critic, self.teacher = network.student, network.critic, teacher
        self.score = network.score

    def players(self) -> tuple[Player, ...]:
        """Return the student, and the others, with optimisers of their own and without averages."""
        players = [make_player(self.student, self.config, name="student", loss="student_loss")]
        critic, score = self.settings.critic.optimizer, self.settings.distribution.optimizer
        for name, module, optimizer in (("critic", self.critic, critic), ("score", self.score, score)):
            if module is not None:
                loss = f"{name}_loss"
                other = make_player(
                    module, self.config, name=name, loss=loss, average=False, optimizer=optimizer
                )
                players.append(other)
        return tuple(players)

    def draw(self, batch: LatentBatch) -> SprintBatch:
        """Angles, noise and guidance scales, each sample's from its own seed."""
        return draw(batch, self.settings)

    def losses(self, batch: SprintBatch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """`student_loss`, or those of the others, `critic_loss` and `score_loss`, by whose turn it is; with parts."""
        batch = batch.to(next(self.network.parameters()).device)
        if self.settings.is_students(batch.step):
            return self._student_losses(batch)
        parts = {} if self.critic is None else self._critic_losses(batch, self.critic)
        return parts if self.score is None else parts | self._score_losses(batch, self.score)

    @torch.no_grad()
    def errors(self, batch: SprintBatch) -> Tensor:
        """Return how far the student is from consistent with its teacher: the mean square of g, [B] float32."""
        batch = batch.to(next(self.network.parameters()).device)
        flow = batch.flow
        x = flow.point(batch.x0)
        dx, tangent = self._along(batch, x, flow.angle)
        trig, _ = self._ask(batch, x, flow.angle)
        return direction(x, flow.angle, trig, dx, tangent, 1.0).square().flatten(1).mean(1)

    def _student_losses(self, batch: SprintBatch) -> dict[str, Tensor]:
        """`student_loss` and its parts."""
        parts: dict[str, Tensor] = {}
        if self.settings.consistency or self.critic is not None:
            parts |= self._published(batch)
        if self.settings.trajectory.weight:
            parts["trajectory"] = self._ends(batch)
        if self.score is not None:
            parts["distribution"] = self._distribution(batch, self.score)
        total = self._sum(parts)
        return {"student_loss": total} | {name: part.detach() for name, part in parts.items()}

    def _published(self, batch: SprintBatch) -> dict[str, Tensor]:
        """SANA-Sprint's own losses, from one pass over the points of both."""
        flow, count = batch.flow, len(batch.x0)
        judged = flow if self.settings.max_time is None else batch.jump
        used = ((flow, self.settings.consistency > 0), (judged, self.critic is not None))
        draws = list(dict.fromkeys(each for each, wanted in used if wanted))
        points, angles = [each.point(batch.x0) for each in draws], [each.angle for each in draws]
        # What the teacher computes comes before the pass with gradients, whose activations are kept.
        along = self._along(batch, points[0], flow.angle) if self.settings.consistency else None
        trig, usual = self._ask(batch, torch.cat(points), torch.cat(angles))
        answers = trig.split(count)
        parts: dict[str, Tensor] = {}
        if along is not None:
            first = None if usual is None else usual[:count]
            parts |= self._consistency(batch, flow.angle, points[0], answers[0], first, *along)
        if self.critic is not None:
            jump = x0_from_trig(points[-1], answers[-1], angles[-1])
            parts["adversarial"] = hinge_generator(self._scores(batch, jump, self.critic))
        return parts

    def _ends(self, batch: SprintBatch) -> Tensor:
        """How far the student's jumps from points of trajectories are from where these end."""
        path = self._followed(batch) if batch.path is None else batch.path
        x, angle, copies = torch.cat(path.points), torch.cat(path.angles), len(path.points)
        x0 = self._jump(replace(batch, text=path.text, guidance=path.guidance), x, angle)
        return end_distance(x0, path.end.repeat(copies, 1, 1, 1))

    def _sum(self, parts: dict[str, Tensor]) -> Tensor:
        """Return the weighted sum of the losses that are there."""
        settings = self.settings
        named = {
            "consistency": settings.consistency, "adversarial": settings.adversarial,
            "trajectory": settings.trajectory.weight, "distribution": settings.distribution.weight,
        }  # fmt: skip
        return torch.stack([weight * parts[name] for name, weight in named.items() if name in parts]).sum()

    def _consistency(
        self, batch: SprintBatch, angle: Tensor, x: Tensor, trig: Tensor, usual: Tensor | None,
        dx: Tensor, tangent: Tensor,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Return the consistency loss, and the root mean square of the direction in which it moves F."""
        settings, fixed = self.settings, trig.detach()
        g = direction(x, angle, fixed, dx, tangent, self._share(batch.step))
        moved = fixed + normalised(g, settings.norm_constant, settings.norm)
        loss = consistency_loss(trig, moved, weights(angle, settings.least_sigma), usual)
        return {"consistency": loss, "direction": g.square().mean().sqrt()}

    def _share(self, step: int) -> float:
        """Return how much of the derivative counts: it rises to 1 over `sprint.warmup` steps."""
        return min(1.0, step / self.settings.warmup) if self.settings.warmup else 1.0

    def _along(self, batch: SprintBatch, x: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
        """Return the teacher's guided velocity dx/da, and the student's derivative cos sin dF/da along it."""
        dx = self.teacher.velocity(x, angle, batch.text, batch.guidance, self._positions(batch))
        take = exact_tangent if self.exact else difference_tangent
        return dx, take(lambda x, angle: self._ask(batch, x, angle)[0], x, angle, dx)

    def _followed(self, batch: SprintBatch) -> Trajectory:
        """Follow the guided teacher from the batch's noise, or from its pictures with noise."""
        number = hash_seed("levels", self.config.seed, batch.step)
        levels = Levels.draw(number, self.settings.trajectory, self.shift)
        guided = partial(self.teacher.guided, positions=self._positions(batch))
        return follow(levels.start(batch.x0, batch.noise), levels, guided, batch.text, batch.guidance)

    def _ask(self, batch: SprintBatch, x: Tensor, angle: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the student's F and usual loss at points x [k B, C, h, w], k of each sample of the batch."""
        copies = len(x) // len(batch.x0)
        found: tuple[Tensor, Tensor | None] = self.student(
            x, angle, _copied(batch.text, copies), batch.guidance.repeat(copies), self._positions(batch)
        )
        return found

    def _scores(self, batch: SprintBatch, x0: Tensor, critic: Critic) -> Tensor:
        """Return what the critic says of pictures that the student made, with a gradient for the student alone."""
        fake = batch.fake
        features = self.teacher.features(fake.point(x0), fake.angle, batch.text, self._positions(batch))
        scores: Tensor = critic(features, frozen=True)
        return scores

    def _critic_losses(self, batch: SprintBatch, critic: Critic) -> dict[str, Tensor]:
        """`critic_loss`, with a gradient for the critic alone, and the mean scores of real and fake pictures."""
        wanted = self.settings.critic
        with torch.no_grad():
            pictures = self._pictures(batch)
            features = self.teacher.features(
                torch.cat([x for x, _ in pictures]), torch.cat([angle for _, angle in pictures]),
                _copied(batch.text, len(pictures)), self._positions(batch),
            )  # fmt: skip
        groups = list(zip(*(tokens.chunk(len(pictures)) for tokens in features), strict=True))
        true = [tokens.requires_grad_(wanted.r1 > 0) for tokens in groups[0]]
        real, fake = critic(true), torch.cat([critic(group) for group in groups[1:]])
        loss = hinge_discriminator(real, fake)
        parts = {"real": real.detach().mean(), "fake": fake.detach().mean()}
        if wanted.r1:
            penalty = gradient_penalty(real, true)
            loss, parts = loss + wanted.r1 * penalty, parts | {"r1": penalty.detach()}
        return {"critic_loss": loss} | parts

    def _pictures(self, batch: SprintBatch) -> list[tuple[Tensor, Tensor]]:
        """(noisy pictures, their angles): real ones, those that the student made, and real ones of other captions."""
        jump = batch.flow if self.settings.max_time is None else batch.jump
        x = jump.point(batch.x0)
        made = self._jump(batch, x, jump.angle)
        real = batch.real.point(batch.x0), batch.real.angle
        found = [real, (batch.fake.point(made), batch.fake.angle)]
        if self.settings.critic.misaligned and len(batch.x0) > 1:
            found.append((real[0].roll(1, 0), real[1].roll(1, 0)))
        return found

    def _distribution(self, batch: SprintBatch, score: nn.Module) -> Tensor:
        """How far the student's pictures are from as likely as the teacher's, with a gradient for the student alone."""
        x0 = self._drawn(batch)
        asked = self.settings.distribution.guidance
        scale = batch.guidance if asked is None else torch.full_like(batch.guidance, asked)
        with torch.no_grad():
            x, s, fake = self._scored(batch, x0, score)
            real = self.teacher.guided(x, s, batch.text, scale, self._positions(batch))
        return matching_loss(x0, x0_from_velocity(x, real, s), x0_from_velocity(x, fake, s))

    def _score_losses(self, batch: SprintBatch, score: nn.Module) -> dict[str, Tensor]:
        """`score_loss`: the flow's, of pictures that the student drew."""
        with torch.no_grad():
            x0 = self._drawn(batch)
        _, _, predicted = self._scored(batch, x0, score)
        return {"score_loss": velocity(predicted, LinearPath().target(x0, batch.matched.noise))["loss"]}

    def _scored(self, batch: SprintBatch, x0: Tensor, score: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """Return pictures x0 with noise on the linear path, their times [B], and the score network's velocity there."""
        x, s = linear_point(batch.matched.point(x0), batch.matched.angle)
        return x, s, score(x, TRAIN_STEPS * s, batch.text, positions=self._positions(batch)).float()

    def _drawn(self, batch: SprintBatch) -> Tensor:
        """Return what the student draws in one step or in two, [B, C, h, w] float32; the last has gradients.

        All of a batch take as many, whatever the processes and micro-batches.
        """
        drawn = random.Random(hash_seed("steps", self.config.seed, batch.step))
        x, angle = batch.jump.noise, batch.guidance.new_full((len(batch.x0),), math.pi / 2)
        if drawn.random() < self.settings.distribution.simulated:
            with torch.no_grad():
                first = self._jump(batch, x, angle)
            angle = torch.full_like(angle, drawn.uniform(*_SECOND))
            x = TrigPath().point(first, batch.noise, angle)
        return self._jump(batch, x, angle)

    def _jump(self, batch: SprintBatch, x: Tensor, angle: Tensor) -> Tensor:
        """Return where the student jumps from points x [k B, C, h, w] at angles [k B], the same shape."""
        return x0_from_trig(x, self._ask(batch, x, angle)[0], angle)

    def _positions(self, batch: LatentBatch) -> Positions:
        phase = self.config.phases[batch.phase]
        return phase_config(self.student.transformer.config, phase, self.ratio).positions


def _copied(text: TextStates, copies: int) -> TextStates:
    """Repeat the states of a batch, one after the other."""
    return text if copies == 1 else TextStates.join([text] * copies)
