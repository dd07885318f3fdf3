"""Student, teacher and critic: who gets a gradient of what, what is asked how often, and what a turn leaves alone."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sanakit.base.text_states import TextStates
from sanakit.kernels import choice
from sanakit.training import DataConfig, RunPhase, TrainConfig
from sanakit.training.objectives.consistency import difference_tangent, exact_tangent
from sanakit.training.objectives.ladd import Critic, LocalBatchNorm
from sanakit.training.objectives.sprint import SprintDistillation
from sanakit.training.objectives.sprint_draws import SprintBatch
from sanakit.training.objectives.sprint_networks import SprintNetwork, Student, Teacher
from sanakit.training.objectives.sprint_settings import (
    CriticConfig,
    DistributionConfig,
    SprintConfig,
    TrajectoryConfig,
)
from sanakit.training.tasks.latents import LatentBatch
from sanakit.transformer import SanaTransformer, TransformerConfig
from tests.oracles.bounds import within

# torch itself scripts its rules for tangents when they are first used.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")

SHAPE = TransformerConfig(
    width=32, depth=3, heads=4, cross_heads=4, latent_channels=4, text_width=8, sample_size=4, qk_norm=True,
    time_scale=0.001,
)  # fmt: skip
BLOCKS = (0, 2)
PATH = TrajectoryConfig(weight=0.7, steps=3, points=2)
MATCHED = DistributionConfig(weight=0.3, turns=1, simulated=0.0)


def objective(**changes: Any) -> SprintDistillation:
    """A dense teacher, a student and a score network that begin as it, and a critic."""
    torch.manual_seed(5)
    settings = SprintConfig(**{"warmup": 10, **changes})
    config = TrainConfig(
        folder=Path("none"), task="sprint", batch=4, phases=(RunPhase(steps=9, size=128),),
        data=DataConfig(path=Path("none")), sprint=settings,
    )  # fmt: skip
    base = SanaTransformer(SHAPE)
    student = SanaTransformer(replace(SHAPE, guidance_embed=True, time_scale=1.0))
    student.load_state_dict(base.state_dict(), strict=False)
    assert student.guidance is not None
    torch.nn.init.zeros_(student.guidance.output.weight)
    torch.nn.init.zeros_(student.guidance.output.bias)
    critic = (
        Critic(32, len(BLOCKS), lambda width: LocalBatchNorm(width, size=8)) if settings.adversarial else None
    )
    score = copy.deepcopy(base) if settings.distribution.weight else None
    network = SprintNetwork(Student(student, settings.adaptive), critic, score)
    null = TextStates(torch.randn(1, 1, 8), torch.ones(1, 1, dtype=torch.bool))
    return SprintDistillation(config, network, Teacher(base, lambda: null, BLOCKS), 32, exact=True, shift=2.0)


def batch(step: int = 0, made: SprintDistillation | None = None) -> SprintBatch:
    """Four samples of a step, drawn by an objective."""
    generator = torch.Generator().manual_seed(3)
    x0, states = torch.randn(4, 4, 4, 4, generator=generator), torch.randn(4, 5, 8, generator=generator)
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[1, 3:] = False
    plain = LatentBatch(
        step=step, phase=0, x0=x0, text=TextStates(states, mask), seeds=(1, 2, 3, 4), keys=tuple("abcd"),
        captions=tuple("abcd"),
    )  # fmt: skip
    return (made or objective()).draw(plain)


def test_a_student_begins_as_its_teacher() -> None:
    made = objective()
    drawn = batch(made=made)
    flow = drawn.flow
    x, text = flow.point(drawn.x0), drawn.text
    found, usual = made.student(x, flow.angle, text, drawn.guidance)
    assert usual is not None and torch.equal(usual, torch.zeros(4))
    within(
        "sprint, first student",
        found.detach(),
        made.teacher.velocity(x, flow.angle, text, torch.ones(4)),
        1e-5,
    )
    guided = made.teacher.velocity(x, flow.angle, text, drawn.guidance)
    assert not torch.allclose(found, guided, atol=1e-3)


def test_the_teacher_is_guided_by_each_sample_s_own_scale() -> None:
    made = objective()
    drawn = batch(made=made)
    x, angle = drawn.flow.point(drawn.x0), drawn.flow.angle

    def at(*scales: float) -> Tensor:
        return made.teacher.velocity(x, angle, drawn.text, torch.tensor(scales))

    uncond, cond = at(0, 0, 0, 0), at(1, 1, 1, 1)
    wanted = torch.stack([uncond[k] + g * (cond[k] - uncond[k]) for k, g in enumerate((4.0, 4.5, 5.0, 1.0))])
    within("sprint, guidance", at(4.0, 4.5, 5.0, 1.0), wanted, 1e-5)


@pytest.mark.parametrize("avoided", ["none", "heads_first"])
def test_exact_derivatives_of_the_network_agree_with_differences(avoided: str) -> None:
    """Through the rows of kernels that are chosen, and through the references."""
    made = objective()
    drawn = batch(made=made)
    flow = drawn.flow
    x = flow.point(drawn.x0)
    dx = made.teacher.velocity(x, flow.angle, drawn.text, drawn.guidance)
    with choice.avoid(avoided):
        exact, near = (
            take(lambda x, angle: made._ask(drawn, x, angle)[0], x, flow.angle, dx)
            for take in (exact_tangent, difference_tangent)
        )
    within("sprint, derivative of a network", near, exact, 2e-3)


def gradients(parts: dict[str, Tensor], made: SprintDistillation) -> tuple[set[str], set[str]]:
    """The names of the losses that have a gradient, and of the players' parameters that got one."""
    live = {name for name, value in parts.items() if value.requires_grad}
    for name in live:
        parts[name].backward()
    return live, {
        name.split(".")[0]
        for name, p in made.network.named_parameters()
        if p.grad is not None and p.grad.any()
    }


@pytest.mark.parametrize(
    ("step", "loss", "mover", "changes"),
    [
        (2, "student_loss", "student", {}),
        (3, "critic_loss", "critic", {}),
        (2, "student_loss", "student", {"distribution": MATCHED}),
        (3, "score_loss", "score", {"distribution": MATCHED, "adversarial": 0.0}),
    ],
)
def test_a_turn_moves_one_player_and_never_the_teacher(
    step: int, loss: str, mover: str, changes: dict[str, Any]
) -> None:
    made = objective(**changes)
    before = [p.clone() for p in made.teacher.transformer.parameters()]
    live, moved = gradients(made.losses(batch(step, made)), made)
    assert (live, moved) == ({loss}, {mover})
    for parameter, kept in zip(made.teacher.transformer.parameters(), before, strict=True):
        assert parameter.grad is None and torch.equal(parameter, kept)
    assert not made.teacher.transformer.training


@pytest.mark.parametrize(
    ("changes", "parts", "asked"),
    [
        ({}, {"student_loss", "consistency", "direction", "adversarial"}, 8),
        ({"max_time": None}, {"student_loss", "consistency", "direction", "adversarial"}, 4),
        ({"adversarial": 0.0}, {"student_loss", "consistency", "direction"}, 4),
        ({"consistency": 0.0}, {"student_loss", "adversarial"}, 4),
        ({"trajectory": PATH}, {"student_loss", "consistency", "direction", "adversarial", "trajectory"}, 16),
        ({"trajectory": PATH, "consistency": 0.0, "adversarial": 0.0}, {"student_loss", "trajectory"}, 8),
        (
            {"distribution": MATCHED, "consistency": 0.0, "adversarial": 0.0},
            {"student_loss", "distribution"},
            4,
        ),
    ],
)
def test_losses_that_weigh_nothing_are_not_computed(
    changes: dict[str, Any], parts: set[str], asked: int
) -> None:
    made = objective(**changes)
    seen: list[int] = []
    made.student.register_forward_pre_hook(
        lambda _, args: seen.append(len(args[0])) if torch.is_grad_enabled() else None
    )
    found = made.losses(batch(2, made))
    assert set(found) == parts and sum(seen) == asked
    weights = {"consistency": 1.0, "adversarial": 0.5} | changes
    weights |= {"trajectory": PATH.weight, "distribution": MATCHED.weight}
    total = sum(weights[name] * found[name] for name in weights if name in found)
    assert torch.allclose(found["student_loss"].detach(), torch.as_tensor(total))


def test_a_student_on_trajectories_learns_to_end_where_its_teacher_does() -> None:
    """The loss is that of jumps from the teacher's points, and falls when the student is moved against its gradient."""
    made = objective(
        consistency=0.0, adversarial=0.0, trajectory=TrajectoryConfig(weight=1.0, steps=4, points=3)
    )
    drawn = batch(1, made)
    mine = [p for p in made.student.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(mine, lr=3e-3)
    losses = []
    for _ in range(25):
        loss = made.losses(drawn)["student_loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0], losses


def test_new_trajectories_are_those_of_the_run_s_seed_and_step() -> None:
    made = objective(trajectory=PATH)

    def firsts(seed: int) -> list[float]:
        made.config = replace(made.config, seed=seed)
        return [float(made._followed(batch(step, made)).angles[0][0]) for step in range(6)]

    assert firsts(0) == firsts(0) != firsts(1)
    assert len(set(firsts(0))) > 1


def test_a_student_as_likely_as_its_teacher_is_not_moved() -> None:
    """The score network begins as the teacher, and guidance of 1 leaves that as it is; more of it does move."""
    changes = {"consistency": 0.0, "adversarial": 0.0}
    for scale, compared, moved in ((1.0, None, False), (4.5, None, True), (4.5, 1.0, False)):
        matched = replace(MATCHED, guidance=compared)
        made = objective(guidance=(scale,), guidance_input=False, distribution=matched, **changes)
        made.losses(batch(2, made))["student_loss"].backward()
        norms = [float(p.grad.norm()) for p in made.student.parameters() if p.grad is not None]
        assert (max(norms) > 1e-4) is moved, norms


def test_the_score_network_learns_pictures_of_one_step_and_of_two() -> None:
    """A jump from pure noise is the velocity with its sign changed; a second one begins at it, with other noise."""
    for simulated in (0.0, 1.0):
        matched = replace(MATCHED, simulated=simulated)
        made = objective(consistency=0.0, adversarial=0.0, distribution=matched)
        assert made.score is not None
        drawn = batch(1, made)
        pictures = made._drawn(drawn).detach()
        with torch.no_grad():
            first = -made._ask(drawn, drawn.jump.noise, torch.full((4,), torch.pi / 2))[0]
        assert torch.allclose(pictures, first, atol=1e-5) is (simulated == 0.0)
        other = replace(drawn, x0=torch.full_like(drawn.x0, torch.nan))  # no picture of the set is read
        assert torch.equal(made._drawn(other), made._drawn(drawn))
        s = torch.sin(drawn.matched.angle) / (torch.sin(drawn.matched.angle) + torch.cos(drawn.matched.angle))
        level = s[:, None, None, None]
        x = (1 - level) * pictures + level * drawn.matched.noise
        velocity = made.score(x, 1000 * s, drawn.text)
        wanted = (velocity - drawn.matched.noise + pictures).square().mean()
        found = made.losses(drawn)["score_loss"].detach()
        assert float(found) == pytest.approx(float(wanted.detach()), rel=1e-4)


def test_the_others_have_their_turns_after_each_of_the_student_s() -> None:
    def students(**changes: Any) -> list[int]:
        return [step for step in range(12) if SprintConfig(**changes).is_students(step)]

    assert students() == [0, 2, 4, 6, 8, 10]
    assert students(adversarial=0.0) == list(range(12))
    matched = DistributionConfig(weight=1.0, turns=2, warmup=4)
    assert students(distribution=matched) == students(distribution=matched, adversarial=0.0) == [6, 9]
    assert students(distribution=replace(matched, weight=0.0)) == [0, 2, 4, 6, 8, 10]


def test_without_a_critic_the_student_moves_in_every_step() -> None:
    made = objective(adversarial=0.0)
    assert "student_loss" in made.losses(batch(3, made))
    assert [player.name for player in made.players()] == ["student"]


def test_players_have_optimisers_of_their_own() -> None:
    student, critic = objective().players()
    assert critic.ema is None and student.ema is not None
    mine = {id(p) for group in student.optimizer.param_groups for p in group["params"]}
    theirs = {id(p) for group in critic.optimizer.param_groups for p in group["params"]}
    assert not mine & theirs


def test_misaligned_pairs_are_real_pictures_with_their_neighbours_captions() -> None:
    made = objective()
    drawn = batch(1, made)
    with torch.no_grad():
        real, _, rolled = made._pictures(drawn)
    assert torch.equal(real[0], drawn.real.point(drawn.x0))
    assert torch.equal(rolled[0][1:], real[0][:-1]) and torch.equal(rolled[1][1:], real[1][:-1])
    without = objective(critic=CriticConfig(misaligned=False))
    assert len(without._pictures(drawn)) == 2


def test_the_gradient_penalty_is_a_part_of_the_critic_s_loss() -> None:
    made = objective(critic=CriticConfig(r1=10.0))
    parts = made.losses(batch(1, made))
    without = objective().losses(batch(1))
    assert torch.allclose(parts["critic_loss"], without["critic_loss"] + 10 * parts["r1"], rtol=1e-4)
    assert parts["r1"] > 0


def test_draws_are_the_samples_own_and_half_of_the_judged_ones_are_pure_noise() -> None:
    made = objective(guidance=(4.0, 5.0))
    drawn = [batch(made=made), batch(made=made)]
    assert torch.equal(drawn[0].fake.noise, drawn[1].fake.noise) and torch.equal(drawn[0].t, drawn[1].t)
    assert set(drawn[0].guidance.tolist()) <= {4.0, 5.0}
    seeds = tuple(range(400))
    many = replace(
        drawn[0], seeds=seeds, x0=torch.zeros(400, 4, 1, 1), keys=("",) * 400, captions=("",) * 400
    )
    angle = made.draw(many).jump.angle
    assert 0.4 < float((angle == torch.pi / 2).float().mean()) < 0.6
    assert float((made.draw(many).real.angle.tan() * 0.5).log().mean()) == pytest.approx(-0.6, abs=0.15)


def test_an_error_is_that_of_the_derivative_and_zero_for_no_flow_at_all() -> None:
    made = objective()
    drawn = batch(made=made)
    assert made.errors(drawn).shape == (4,) and bool((made.errors(drawn) > 0).all())
    assert not made.errors(drawn).requires_grad
