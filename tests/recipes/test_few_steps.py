"""Recipes of models of few steps: a distillation from pictures to table, and the networks that they begin with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from recipes import (
    edge,
    few_steps,
    recover,
    sprint_ablations,
    toybox_follow,
    toybox_sprint,
    toybox_steps,
    unnormed,
)
from recipes.few_steps import sprint_config
from recipes.settings import run_task
from sanakit.base.errors import ModelNotFoundError, NumericsError, RequestError
from sanakit.base.precision import decide
from sanakit.base.text_states import TextStates
from sanakit.pipeline import Model, load
from sanakit.training import DataConfig, TrainConfig, World
from sanakit.training.objectives.flow_matching import FlowMatching
from sanakit.training.objectives.sprint_settings import SprintConfig
from sanakit.training.tasks.latents import NoisyBatch
from sanakit.transformer import SanaTransformer
from sanakit.weights import load_transformer, read_model_spec, read_words, resolve
from tests.training.sets import cache, pictures

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")


def tiny(folder: Path, steps: int = 2, **changes: Any) -> TrainConfig:
    """Two steps of the shipped model at 64 px."""
    config = sprint_config(
        folder, steps, pictures=pictures(), cache=cache(), size=64, batch=4, held=4, **changes
    )
    return replace(config, dtype="fp32", preview=replace(config.preview, every=0), validate=0)


def shipped() -> SanaTransformer:
    spec = read_model_spec(resolve("toybox"))
    model = SanaTransformer(spec.transformer)
    load_transformer(model, spec.transformer, spec.transformer_source, dtype=torch.float32)
    return model.eval()


def noisy(count: int = 4) -> NoisyBatch:
    generator = torch.Generator().manual_seed(0)
    shape = (count, 32, 8, 8)
    text = TextStates(torch.randn(count, 6, 160, generator=generator), torch.ones(count, 6, dtype=torch.bool))
    x0, noise = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    times = torch.linspace(0.2, 0.9, count)
    return NoisyBatch(
        step=0, phase=0, x0=x0, noise=noise, t=times, text=text, seeds=(), keys=(), captions=()
    )  # fmt: skip


def test_distilled_shipped_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, folder = tiny(tmp_path / "run"), tmp_path / "sprint"
    with pytest.raises(ModelNotFoundError):
        toybox_sprint.ship(config, folder)
    toybox_sprint.train(config)
    toybox_sprint.train(replace(config, phases=(replace(config.phases[0], steps=3),)))  # goes on
    toybox_sprint.ship(config, folder)
    spec, teacher = read_model_spec(folder), read_model_spec(resolve("toybox"))
    assert spec.kind == "sprint" and read_words(spec) == read_words(teacher)
    assert spec.about is not None and spec.about.name == "Toybox-Sprint" and "cube" in spec.about.knows[0]

    out = tmp_path / "steps"
    found = toybox_steps.report([(load(folder, device="cpu"), (1, 2))], prompts=2, rows=1, folder=out)
    assert [row.split(" | ")[:2] for row in found.splitlines()[2:]] == [["| sprint", "1"], ["| sprint", "2"]]
    cells = json.loads((out / "steps.json").read_text())["cells"]
    assert [(cell["model"], cell["steps"], cell["prompts"]) for cell in cells] == [
        ("sprint", 1, 2),
        ("sprint", 2, 2),
    ]
    assert all(cell["seconds"] > 0 for cell in cells) and (out / "steps.png").exists()
    monkeypatch.setattr(few_steps, "measured", lambda *arguments: pytest.fail("it was measured already"))
    again = toybox_steps.measure_all([(load(folder, device="cpu"), (1, 2))], 2, out)
    assert toybox_steps.table(again) == found
    (folder / "vae" / "config.json").touch()  # another decoder draws other pictures
    with pytest.raises(pytest.fail.Exception, match="measured already"):
        toybox_steps.measure_all([(load(folder, device="cpu"), (1,))], 2, out)


def test_what_was_measured_of_another_model_of_that_name_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def measured(model: Model, steps: int, prompts: int) -> dict[str, float]:
        asked.append(model.name)
        return {"right": float(len(asked))}

    monkeypatch.setattr(few_steps, "measured", measured)
    first, other = load("toybox", device="cpu"), load("toybox-sprint", device="cpu")
    found = [
        few_steps.kept_measures(tmp_path / "run.json", model, 2, 4) for model in (first, first, other, other)
    ]
    assert [cell["right"] for cell in found] == [1, 1, 2, 2] and asked == ["toybox", "toybox-sprint"]


@pytest.mark.parametrize(
    "sprint",
    [
        few_steps.sprint_settings(0, "toybox-sprint"),
        few_steps.trajectory_settings("toybox-sprint", stored=8),
    ],
    ids=["published", "trajectories"],
)
def test_of_a_student_that_is_distilled_further_the_mean_ships(tmp_path: Path, sprint: SprintConfig) -> None:
    first = toybox_follow.weights_of(read_model_spec(resolve("toybox-sprint")))
    config = tiny(tmp_path / "run", sprint=sprint)
    toybox_sprint.train(config)
    toybox_sprint.ship(config, tmp_path / "sprint")
    own = toybox_follow.weights_of(read_model_spec(tmp_path / "run" / "model"))
    found = toybox_follow.weights_of(read_model_spec(tmp_path / "sprint"))
    assert any(not torch.equal(own[name], first[name]) for name in own)
    for name, value in found.items():
        torch.testing.assert_close(value, first[name].lerp(own[name], 0.5), rtol=2**-8, atol=1e-6)
    shipped = read_model_spec(tmp_path / "sprint")
    assert shipped.schedule.angles == toybox_sprint.ANGLES
    assert shipped.about is not None and shipped.about.name == "Toybox-Sprint"


def test_all_shipped_weights_are_small() -> None:
    assert 0 < toybox_sprint.shipped_bytes() < toybox_sprint.LARGEST


def test_names_of_models_in_tables() -> None:
    assert toybox_steps.short("runs/edge/flow/model") == "flow"
    assert toybox_steps.short("toybox") == "toybox"
    models = toybox_steps.parse_models(["toybox:4,20", "toybox"], (1, 2))
    assert [(model.name, steps) for model, steps in models] == [("toybox", (4, 20)), ("toybox", (1, 2))]
    with pytest.raises(RequestError, match="numbers of steps look like"):
        toybox_steps.parse_models(["toybox:four"], (1,))


def test_variants_differ_and_have_as_many_steps_of_the_student() -> None:
    configs = [sprint_ablations.config_of(name, 0, 10) for name in sprint_ablations.VARIANTS]
    tasks = [variant.task for variant in sprint_ablations.VARIANTS.values()]
    told = {repr((c.sprint, c.base, task)) for c, task in zip(configs, tasks, strict=True)}
    assert len(told) == len(configs) == len({c.folder for c in configs})
    assert [c.steps for c in configs if not c.sprint.adversarial] == [5, 5]
    assert {c.steps for c in configs if c.sprint.adversarial} == {10}


def test_the_time_of_ablations_is_planned_apart_from_runs_that_have_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planned = []

    def session(config: TrainConfig, **_: object) -> SimpleNamespace:
        planned.append(config.folder)
        return SimpleNamespace(plan=SimpleNamespace(seconds=2.0))

    monkeypatch.setattr(sprint_ablations, "Session", session)
    assert sprint_ablations.expected([(sprint_ablations.USUAL, seed) for seed in range(3)], 10) == 60
    runs = {
        sprint_ablations.config_of(name, seed, 10).folder
        for name in sprint_ablations.VARIANTS
        for seed in range(3)
    }
    assert not runs & {*planned}


def test_a_table_of_ablations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sprint_ablations, "RUNS", tmp_path)
    found = [{"right": right, "score": right / 150, "frechet": 2.0} for right in (75, 105, 135)]
    for seed, one in enumerate([*found, sprint_ablations.COLLAPSED]):
        folder = sprint_ablations.config_of("sCM alone", seed, 7).folder
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(one))
    rows = sprint_ablations.table(7).splitlines()[2:]
    assert rows == ["| sCM alone | 3 of 4 | 105 ± 30 | 0.700 ± 0.200 | 2.00 ± 0.00 | 8.93, 27.51 |"]


def test_a_run_that_its_guard_gives_up_is_kept_as_collapsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def given_up(*_: object) -> None:
        raise NumericsError("3 steps in a row had to be skipped")

    monkeypatch.setattr(sprint_ablations, "RUNS", tmp_path)
    monkeypatch.setattr(sprint_ablations, "run_task", given_up)
    monkeypatch.setattr(sprint_ablations, "config_of", lambda name, seed, steps: tiny(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    assert sprint_ablations.measure("sCM alone", 0, 2) == {"collapsed": 1.0}
    assert json.loads((tmp_path / "run/result.json").read_text()) == {"collapsed": 1.0}


def test_a_student_that_reads_times_in_0_to_1000(tmp_path: Path) -> None:
    config = tiny(tmp_path, sprint=SprintConfig(adversarial=0, warmup=2))
    task = sprint_ablations.ThousandTask(config, decide("cpu", "fp32"), World(), print)
    assert task.network_config.time_scale == 1000
    trainer = run_task(task, config, decide("cpu", "fp32"))
    assert not (tmp_path / "model").exists()
    drawn = few_steps.averaged(task, trainer)
    assert few_steps.measured(drawn, 2, 2)["score"] > 0
    # Its embedding of times is the teacher's, but for two steps of training.
    s = torch.linspace(0, 1, 5)
    with torch.no_grad():
        wanted = shipped().embed_time(1000 * s, None)
        found = drawn.parts.transformer.time(1000 * s)
    assert torch.allclose(found, wanted, atol=0.05 * float(wanted.abs().max()))


def test_norms_are_folded_into_projections() -> None:
    teacher, plain, batch = shipped(), unnormed.shipped_unnormed().eval(), noisy()
    assert not plain.config.qk_norm and not any(".norm_" in name for name in plain.state_dict())
    bare = SanaTransformer(plain.config).eval()
    bare.load_state_dict({name: w for name, w in teacher.state_dict().items() if ".norm_" not in name})
    inputs = (batch.x0 + batch.noise, 1000 * batch.t, batch.text)
    with torch.no_grad():
        wanted = teacher(*inputs)
        folded, cut = (float((net(*inputs) - wanted).square().mean()) for net in (plain, bare))
    assert folded < 0.5 * cut


def test_a_teacher_without_norms_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unnormed, "SIZE", 64)
    data = DataConfig(path=pictures(), cache=tmp_path / "cache", square=True)
    folder = unnormed.unnormed_teacher(tmp_path, 4, steps=1, data=data)
    assert not read_model_spec(folder).transformer.qk_norm
    monkeypatch.setattr(unnormed, "run_flow", lambda config, *rest: config.folder)
    assert unnormed.unnormed_teacher(tmp_path, 4, steps=1, data=data) == tmp_path


def test_a_shallow_network_has_the_blocks_that_end_each_part() -> None:
    assert edge.ends(10, 3) == [2, 6, 9] and edge.ends(10, 10) == list(range(10))
    teacher = shipped()
    student = edge.shallow(teacher, [2, 6, 9])
    assert torch.equal(student.blocks[1].table, teacher.blocks[6].table)  # type: ignore[arg-type]
    share = sum(p.numel() for p in student.parameters()) / sum(p.numel() for p in teacher.parameters())
    assert share < 0.37


def test_feature_distillation_is_0_for_the_teacher_itself(tmp_path: Path) -> None:
    teacher, batch = shipped(), noisy()
    blocks = [2, 6, 9]
    config = edge.flow_config(2, tmp_path, pictures(), cache(), size=256)
    same = FlowMatching(config, edge.shallow(teacher, range(10)), 32, 1.0)
    whole = edge.FeatureDistillation(same, teacher, range(10)).losses(batch)
    assert float(whole["loss"].detach()) < 1e-9
    flow = FlowMatching(config, edge.shallow(teacher, blocks), 32, 1.0)
    losses = edge.FeatureDistillation(flow, teacher, blocks).losses(batch)
    with torch.no_grad():
        mine, theirs = (
            net(same.path.point(batch.x0, batch.noise, batch.t), (1000 * batch.t).floor(), batch.text)
            for net in (flow.transformer, teacher)
        )
    assert float(losses["velocity"]) == pytest.approx(float((mine - theirs).square().mean()), rel=1e-4)
    losses["loss"].backward()
    assert flow.transformer.patch.weight.grad is not None and teacher.patch.weight.grad is None


def test_an_edge_model_from_its_teacher_to_its_table(tmp_path: Path) -> None:
    config = replace(edge.flow_config(1, tmp_path, pictures(), cache(), size=64), batch=4, dtype="fp32")
    folder = edge.distil_flow(config)
    assert read_model_spec(folder).transformer.depth == 3
    rows = edge.table([("flow", load(folder, device="cpu"))], 2, tmp_path / "cells").splitlines()
    assert rows[2].startswith("| flow | 3.8 | 7.5 | 20 |")
    assert edge.distil_flow(config) == folder


def test_a_pruned_model_is_trained_on_towards_the_whole_one(tmp_path: Path) -> None:
    assert recover.handed_on([0, 2, 4], 5) == [1, 3, 4] and recover.handed_on(range(3), 3) == [0, 1, 2]
    config = recover.recovery_config(tmp_path, 1, pictures=pictures(), cache=cache(), size=64, batch=4)
    config = replace(config, dtype="fp32")  # as all that share the cache
    folder = recover.recover(config, [0, 4, 9])
    assert read_model_spec(folder).transformer.depth == 3
    rows = recover.table([("after 1 step", folder)], 2, tmp_path / "cells").splitlines()
    assert rows[2].startswith("| after 1 step | 3 | 3.8 |")
