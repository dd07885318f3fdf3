"""Toybox-Sprint on one GPU: the student that ships follows the run's model and is distilled further.

It is `task: sprint` on what is in the card's memory already.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from recipes.few_steps import sprint_config, sprint_settings
from recipes.gpu_flow import FlowData
from recipes.gpu_loop import Learner, Pace, recorded, run_for
from recipes.gpu_run import GpuRun, say
from recipes.toybox_follow import weights_of, with_change, write_student
from recipes.toybox_model import DEVICE, Captions, read_captions, read_states
from recipes.toybox_second import shipped_text
from sanakit.base.text_states import TextStates
from sanakit.flow.path import time_from_angle
from sanakit.training.objectives.consistency import angles
from sanakit.training.objectives.ladd import Critic, LocalBatchNorm
from sanakit.training.objectives.sprint import SprintDistillation
from sanakit.training.objectives.sprint_draws import Draw, SprintBatch
from sanakit.training.objectives.sprint_networks import SprintNetwork, Student, Teacher
from sanakit.training.objectives.sprint_settings import AngleDensity
from sanakit.training.tasks.network import load_base
from sanakit.weights import (
    read_model_spec,
    resolve,
)

BATCH, RATE = 256, 4e-5
"""At 1e-4 the student collapses within 365 of its steps (docs/sprint.md)."""
VIRTUAL_BATCH = 32
"""Samples that the critic's norms see together: those of eight would launch four times as many kernels."""


class SprintTraining:
    """Losses of a student and of its critic, with draws on the device.

    The student begins as Toybox-Sprint, with the change from the shipped Toybox to its teacher.
    base: the teacher's folder. batch: samples of a step.
    """

    def __init__(self, base: Path, batch: int) -> None:
        settings = replace(sprint_settings(warmup=0), tangent="exact")
        self.settings = replace(settings, critic=replace(settings.critic, virtual_batch=VIRTUAL_BATCH))
        self.spec = read_model_spec(base)
        cpu = torch.device("cpu")
        teacher = load_base(self.spec, torch.float32, cpu)
        judged = self.settings.critic.numbers(teacher.config.depth)
        self.former, shipped = (read_model_spec(resolve(name)) for name in ("toybox-sprint", "toybox"))
        student = load_base(self.former, torch.float32, cpu)
        student.load_state_dict(with_change(student.state_dict(), weights_of(shipped), teacher.state_dict()))
        torch.manual_seed(0)
        self.student = Student(student.requires_grad_(True), adaptive=True)
        self.critic = Critic(teacher.config.width, len(judged), partial(LocalBatchNorm, size=VIRTUAL_BATCH))
        tokenizer, text = shipped_text(self.spec)
        self.text = text.to(DEVICE).eval().requires_grad_(False)  # type: ignore[arg-type]  # a wrapper's
        self.empty = read_captions(tokenizer, [""]).to(DEVICE)
        null = self.states(self.empty)
        self.scales = torch.tensor(self.settings.guidance, device=DEVICE)
        self.objective = SprintDistillation(
            sprint_config(base.parent, 1, batch=batch, sprint=self.settings),
            SprintNetwork(self.student, self.critic).to(DEVICE),
            Teacher(teacher.to(DEVICE), lambda: null, judged), self.spec.autoencoder.ratio, exact=True,
            shift=self.spec.schedule.shift,
        )  # fmt: skip

    @torch.no_grad()
    def states(self, captions: Captions) -> TextStates:
        """What the text encoder says of captions."""
        return TextStates(read_states(self.text, captions), captions.mask)

    def losses(self, number: int, x0: Tensor, captions: Captions) -> dict[str, Tensor]:
        """The losses of a step: `student_loss` if its number is even, else `critic_loss`."""
        return self.objective.losses(self.draw(number, x0, self.states(captions)))

    def draw(self, number: int, x0: Tensor, text: TextStates) -> SprintBatch:
        """Draw angles, noise and guidance scales on the device."""
        settings, count = self.settings, len(x0)
        flow, jump = (noised(x0, settings.times) for _ in range(2))
        if settings.max_time is not None:
            pure = torch.rand(count, device=DEVICE) < settings.max_time
            jump = Draw(torch.where(pure, torch.pi / 2, jump.angle), jump.noise)
        return SprintBatch(
            step=number, phase=0, x0=x0, text=text, seeds=(), keys=(), captions=(),
            t=time_from_angle(flow.angle), noise=flow.noise, jump=jump,
            guidance=self.scales[torch.randint(len(self.scales), (count,), device=DEVICE)],
            real=noised(x0, settings.critic.times), fake=noised(x0, settings.critic.times),
            matched=noised(x0, settings.distribution.times),
        )  # fmt: skip


def noised(x0: Tensor, density: AngleDensity) -> Draw:
    """Draw angles of a density, and noise."""
    normal = torch.randn(len(x0), device=x0.device)
    return Draw(angles(normal, density.mean, density.std), torch.randn_like(x0))


def train_sprint(run: GpuRun) -> None:
    """Distil the run's model further, and write the averaged student as a whole model to the run's `sprint`.

    A run may collapse, so the student of every whole minute is written as well: `sprint-1` and so on.
    """
    run.ready("model/model_index.json")
    batch = run.batch or BATCH
    training = SprintTraining(run.folder / "model", batch)
    data = FlowData(run, training.empty)
    pace = Pace(lr=run.lr or RATE, cooldown=0.4, ema=0.998)
    learners = Learner(training.student, pace), Learner(training.critic, pace)

    def losses(number: int) -> dict[str, Tensor]:
        rows = data.draw_rows(batch)
        return training.losses(number, data.x0(rows), data.captions(rows))

    names = ("student_loss", "critic_loss")
    computed = [
        recorded(learner.gradients(partial(losses, number), name))
        for number, (learner, name) in enumerate(zip(learners, names, strict=True))
    ]
    known, written = dict[str, Tensor](), {0}

    def write(name: str) -> None:
        with learners[0].average.applied(training.student):
            write_student(training.former, training.spec, training.student.transformer, run.folder / name)

    def step(number: int, done: float) -> dict[str, Tensor]:
        turn, minute = number % 2, int(run.seconds * done / 60)
        if minute not in written:
            written.add(minute)
            write(f"sprint-{minute}")
        known.update(computed[turn]())
        return known | {f"{names[turn]} gradient": learners[turn].step(done)}

    say(f"sprint: {run_for(run.seconds, step, say)} steps of {batch}")
    write("sprint")
