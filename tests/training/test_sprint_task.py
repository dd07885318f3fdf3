"""Distillation from its config to its model: resumed it is the same, its model draws in a step, faults are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import load_file

from sanakit.base import ConfigError
from sanakit.layers.embed import ScalarEmbed, sinusoid
from sanakit.pipeline import ImageRequest, load
from sanakit.training import StepReport, read_journal
from sanakit.training.config_warnings import config_warnings
from sanakit.training.export import export_step
from sanakit.training.session import Session
from sanakit.training.tasks.dense_time import fit_dense_time
from sanakit.transformer import SanaTransformer
from sanakit.weights import load_transformer, read_model_spec, resolve
from tests.training.pair import Pair, losses_of
from tests.training.sets import SHAPE, config, pictures, values
from tests.training.test_memory import taken
from tests.training.test_session import run, same, weights

# torch itself scripts its rules for tangents when they are first used.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
PATH = {"weight": 1.0, "steps": 3, "points": 2}
MATCHED = {"weight": 1.0, "turns": 1}


def sprint(teacher: Path, **changes: Any) -> dict[str, Any]:
    return {"task": "sprint", "base": str(teacher), "model": {}, "sprint": {"warmup": 4}} | changes


def test_a_run_ends_with_a_model_of_few_steps(teacher: Path, tmp_path: Path) -> None:
    told = run(tmp_path / "run", **sprint(teacher, preview={"every": 6}, validate=6))
    assert not [line for line in told if "failed" in line], told
    found = load(tmp_path / "run/model", device="cpu")
    spec = found.spec
    assert (spec.kind, spec.schedule.kind, spec.transformer.time_scale) == ("sprint", "scm", 1.0)
    for steps in (1, 2):
        assert found.images(ImageRequest(prompt="a red sphere", steps=steps))[0].size == (64, 64)
    assert len(list((tmp_path / "run/previews").glob("*.png"))) == 2  # before the first step, and at the end
    assert read_journal(tmp_path / "run", kind="validation")[6]["loss"] > 0
    steps = read_journal(tmp_path / "run")
    assert all(
        ("critic_loss" in entry) == (number % 2 == 0) for number, entry in steps.items()
    )  # counted from 1
    assert all(0 < entry["mfu"] <= 1 for entry in steps.values())


def test_a_checkpoint_holds_both_players_and_not_the_teacher(teacher: Path, tmp_path: Path) -> None:
    run(tmp_path, **sprint(teacher))
    names = weights(tmp_path)
    owners = {".".join(name.split(".")[:2]) for name in names}
    assert owners == {"model.student", "model.critic", "ema.student", "optim.student", "optim.critic"}
    assert "model.student.logvar_linear.weight" in names and "model.critic.heads.0.wide.left" in names
    run(
        tmp_path / "matched",
        **sprint(teacher, sprint={"adversarial": 0, "distribution": MATCHED, "warmup": 4}),
    )
    owners = {".".join(name.split(".")[:2]) for name in weights(tmp_path / "matched")}
    assert owners == {"model.student", "model.score", "ema.student", "optim.student", "optim.score"}
    exported = export_step(config(tmp_path, **sprint(teacher)), 6)
    assert read_model_spec(exported).kind == "sprint"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"recompute": 1, "sprint": {"tangent": "difference", "warmup": 4}},
        {"sprint": {"consistency": 0, "trajectory": PATH}},
        {"sprint": {"consistency": 0, "adversarial": 0, "trajectory": PATH | {"stored": 20}}},
        {"recompute": 1, "sprint": {"consistency": 0, "distribution": MATCHED | {"warmup": 1}}},
    ],
)
def test_a_resumed_run_equals_the_whole_to_the_bit(
    teacher: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, **sprint(teacher, **changes))
    session = Session(config(parts, **sprint(teacher, saving={"steps": 3}, **changes)), device="cpu")
    for event in session.events():
        if isinstance(event, StepReport) and event.step == 5:
            break  # as a crash would: nothing of steps 4 and 5 is saved
    run(parts, resume=True, **sprint(teacher, **changes))
    assert same(whole, parts)


def test_a_checkpoint_of_other_settings_is_refused(teacher: Path, tmp_path: Path) -> None:
    run(tmp_path, **sprint(teacher))
    with pytest.raises(ConfigError, match=r"other settings .*sprint.adversarial: 0.5 -> 0.25"):
        run(tmp_path, resume=True, **sprint(teacher, sprint={"warmup": 4, "adversarial": 0.25}))
    assert "sprint" not in config(tmp_path).identity


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sprint": {"consistency": 0, "adversarial": 0}}, "are all 0: nothing is learnt"),
        ({"sprint": {"guidance_input": False}}, "has 3 scales, and the student is not told which"),
        ({"sprint": {"guidance": []}}, "sprint.guidance is empty"),
        ({"sprint": {"critic": {"blocks": [1.2]}}}, r"sprint.critic.blocks\[0\] is 1.2; it must be .* below 1"),
        ({"sprint": {"critic": {"blocks": []}}}, "name one block at least"),
        (
            {"sprint": {"distribution": MATCHED | {"warmup": 6}}},
            "sprint.distribution.warmup is 6 and the run has 6 steps: the student would never move",
        ),
        ({"model": {"start": "scratch"}}, "model: the task sprint has no such setting"),
        ({"text": {"train": True}}, "text: the task sprint has no such setting"),
        ({"times": {"levels": 10}}, "times: the task sprint has no such setting"),
        ({"preview": {"steps": 4}}, "preview.steps: the task sprint has no such setting"),
        ({"phases": [{"steps": 2, "size": 64, "shift": 2.0}]}, r"phases\[0\].shift: the task sprint has no"),
        ({"objective": "flow_matching"}, "objective: 'flow_matching' is not one of this task's; it has sprint"),
    ],
)  # fmt: skip
def test_what_cannot_be_distilled_is_refused(
    teacher: Path, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        Session(config(tmp_path / "run", **sprint(teacher, **changes)), device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_distilled_already_is_no_teacher(teacher: Path, tmp_path: Path) -> None:
    run(tmp_path / "first", **sprint(teacher, phases=[{"steps": 1, "size": 64}]))
    with pytest.raises(ConfigError, match="is a sprint model; take a flow model"):
        Session(config(tmp_path / "second", **sprint(tmp_path / "first/model")), device="cpu")


def test_a_student_goes_on_from_one_that_is_distilled(teacher: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run(first, **sprint(teacher))
    settings = {"warmup": 0, "student": str(first / "model")}
    still = {"name": "adamw", "lr": 0.0}
    session = Session(config(second, **sprint(teacher, sprint=settings, optimizer=still)), device="cpu")
    assert f"begins as {first / 'model'}" in "\n".join(session.plan.lines())
    for _ in session.events():
        pass
    begun, ended = (load_file(folder / "model" / TRANSFORMER) for folder in (first, second))
    assert begun.keys() == ended.keys()
    assert all(torch.equal(ended[name], weight) for name, weight in begun.items())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"depth": 3}, "has depth 2, and the teacher asks for 3"),
        (None, "is a sana model; take a model of few steps"),
    ],
)
def test_a_student_of_another_kind_is_refused(
    teacher: Path, tmp_path: Path, changes: dict[str, int] | None, told: str
) -> None:
    student, base = teacher, teacher
    if changes is not None:
        run(tmp_path / "first", **sprint(teacher, phases=[{"steps": 1, "size": 64}]))
        start = {"start": "scratch", "changes": SHAPE | changes}
        run(tmp_path / "other", phases=[{"steps": 1, "size": 64}], model=start)
        student, base = tmp_path / "first/model", tmp_path / "other/model"
    with pytest.raises(ConfigError, match=rf"sprint.student: .* {told}"):
        Session(config(tmp_path / "run", **sprint(base, sprint={"student": str(student)})), device="cpu")


def test_a_scale_that_is_no_input_leaves_its_embedding_alone(teacher: Path, tmp_path: Path) -> None:
    settings = {"guidance": [4.5], "guidance_input": False, "warmup": 4, "adversarial": 0}
    run(tmp_path, **sprint(teacher, sprint=settings))
    kept = weights(tmp_path)
    assert not any(name.startswith("optim.student.transformer.guidance") for name in kept)
    assert not kept["model.student.transformer.guidance.output.weight"].any()
    assert not any("critic" in name for name in kept)


def test_the_plan_tells_of_teacher_and_student(teacher: Path, tmp_path: Path) -> None:
    plan = Session(config(tmp_path, **sprint(teacher)), device="cpu").plan
    lines = "\n".join(plan.lines())
    assert "the base model's go to 1000, a Sprint model's to 1" in lines
    assert "derivative exact, by forward-mode differentiation" in lines
    near = Session(config(tmp_path, **sprint(teacher, sprint={"tangent": "difference"})), device="cpu").plan
    assert "derivative by central differences" in "\n".join(near.lines())
    assert any("sprint.warmup is 4000 and the run has 6 steps" in text for text in near.warnings)
    follows = Session(config(tmp_path, **sprint(teacher, sprint={"trajectory": PATH})), device="cpu").plan
    assert (
        "trajectory of 3 guided steps of the teacher; the student is asked at 2 points of each"
        in " ".join("\n".join(follows.lines()).split())
    )
    assert follows.work.operations > plan.work.operations
    matched = Session(
        config(tmp_path, **sprint(teacher, sprint={"distribution": MATCHED})), device="cpu"
    ).plan
    told = " ".join("\n".join(matched.lines()).split())
    assert "a score network that begins as the teacher moves once after each step" in told
    assert matched.work.parameters - plan.work.parameters == plan.work.frozen / 4  # float32
    assert matched.work.operations > plan.work.operations
    alone = Session(config(tmp_path, **sprint(teacher, sprint={"adversarial": 0})), device="cpu").task
    assert alone.workload().parameters < plan.work.parameters
    assert alone.workload().activations < plan.work.activations


@pytest.mark.parametrize(
    ("settings", "least"),
    # Without a critic there are no gradients of another player, which are planned and not there.
    [
        ({"warmup": 4000}, 1),
        ({"consistency": 0, "adversarial": 0, "trajectory": PATH}, 0.95),
        ({"consistency": 0, "adversarial": 0, "distribution": MATCHED}, 1),
    ],
)
def test_a_turn_of_each_player_takes_the_memory_of_the_plan(
    teacher: Path, tmp_path: Path, settings: dict[str, Any], least: float
) -> None:
    changes = sprint(teacher, batch=8, phases=[{"steps": 5, "size": 64}], sprint=settings)
    session = Session(config(tmp_path, **changes), device="cpu")
    told = session.plan.memory
    lying, step = taken(session)
    assert told.network == pytest.approx(lying, rel=0.02)
    # A little more than it takes: both players' gradients are planned, and only one has them at a time.
    planned = told.network + told.gradients + told.activations
    assert least <= planned / (lying + step) < 1.4


def test_settings_that_nothing_reads_are_told(tmp_path: Path) -> None:
    unread = config_warnings(config(tmp_path, sprint={"warmup": 3}))
    assert "sprint is not read with the task transformer" in unread
    settings = {"adversarial": 0, "max_time": 0.1, "critic": {"r1": 1.0}, "warmup": 3}
    settings |= {"trajectory": {"steps": 7}, "distribution": {"turns": 2}}
    told = config_warnings(config(tmp_path, task="sprint", model={}, sprint=settings))
    assert "sprint.trajectory.steps is not read with sprint.trajectory.weight 0" in told
    assert "sprint.critic is not read with sprint.adversarial 0" in told
    assert "sprint.distribution.turns is not read with sprint.distribution.weight 0" in told
    assert "sprint.max_time is not read with sprint.adversarial 0" in told


def test_a_time_embedding_of_a_thousand_becomes_a_dense_one() -> None:
    spec = read_model_spec(resolve("toybox"))
    with torch.device("meta"):
        model = SanaTransformer(spec.transformer)
    load_transformer(model, spec.transformer, spec.transformer_source, dtype=torch.float32)
    dense = ScalarEmbed(spec.transformer.width)
    dense.load_state_dict(model.time.state_dict())
    fit_dense_time(dense, 1000.0)
    s = torch.linspace(0, 1, 777)
    with torch.no_grad():
        wanted, found = model.time(1000 * s), dense(s)
    lost = (found - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum()
    assert float(lost) < 0.02
    assert dense.output.weight.detach().norm() < model.time.output.weight.detach().norm()
    # One step of Adam moves the embedding by the learning rate times this.
    sums = [
        F.silu(embed.input(sinusoid(times, 256))).detach().abs().sum(dim=1)
        for embed, times in ((dense, s), (model.time, 1000 * s))
    ]
    assert sums[0].max() < 4 * sums[1].max()


def alone(teacher: Path, pictures: Path, cache: Path) -> dict[str, Any]:
    """A run in which no sample sees another, so that any number of processes computes the same steps."""
    critic = {"norm": "group", "misaligned": False}
    data = {"path": str(pictures), "cache": str(cache), "square": True, "held": 4}
    # A large epsilon: the teacher is hardly trained, and Adam would make steps of gradients that are rounding alone.
    return sprint(
        teacher, sprint={"warmup": 4, "critic": critic}, data=data, optimizer={"lr": "1e-3", "eps": [1e-3]}
    )


@pytest.mark.parametrize("settings", [{}, {"adversarial": 0, "consistency": 0, "distribution": MATCHED}])
def test_two_processes_distil_as_one_does(
    teacher: Path, tmp_path: Path, pair: Pair, settings: dict[str, Any]
) -> None:
    changes = alone(teacher, pictures(), tmp_path / "cache")
    changes["sprint"] |= settings
    run(tmp_path / "one", **changes)
    # ddp is the same code on another mesh: test_parallel.py
    seen, _ = pair(losses_of, values(tmp_path / "two", **changes, parallel="fsdp"))
    wanted = [entry["loss"] for _, entry in sorted(read_journal(tmp_path / "one").items())]
    assert seen == pytest.approx(wanted, abs=1e-4)
    assert read_model_spec(tmp_path / "two/model").kind == "sprint"
