"""A ControlNet is trained beside a frozen model: from annotators and from files, resumed, exported, refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sanakit.base import ConfigError
from sanakit.data import open_set
from sanakit.data.annotators import Annotator
from sanakit.training import StepReport, read_journal
from sanakit.training.config_warnings import config_warnings
from sanakit.training.export import export_step
from sanakit.training.objectives.control_matching import ControlMatching, NoisyControlBatch
from sanakit.training.session import Session
from sanakit.training.tasks.control import ControlTask
from sanakit.weights import read_control_spec, read_model_spec
from tests.training.sets import config, pictures
from tests.training.test_session import run, same, weights

SMALL = {"start": "scratch", "changes": {"depth": 3, "width": 32, "heads": 2, "cross_heads": 2}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small flow model of three blocks."""
    folder = tmp_path_factory.mktemp("base")
    run(folder, model=SMALL, phases=[{"steps": 2, "size": 64}], ema=0.5)
    return folder / "model"


def control(base: Path, **changes: Any) -> dict[str, Any]:
    """The settings of a run beside the small model."""
    settings = {"copies": 2} | changes.pop("control", {})
    plain = {"task": "control", "base": str(base), "model": {}, "control": settings, "preview": {"every": 0}}
    return plain | changes


def test_a_checkpoint_holds_the_control_net_alone_and_the_folder_fits_the_base(
    base: Path, tmp_path: Path
) -> None:
    told = run(tmp_path, **control(base, validate=3, preview={"every": 6, "steps": 1}))
    assert told[-1].startswith(f"step 6: the ControlNet is in {tmp_path}/control: sanakit generate PROMPT")
    names = {name for name in weights(tmp_path) if name.startswith("model.")}
    assert {"model.input.weight", "model.outputs.1.bias", "model.blocks.1.attention.qkv.weight"} <= names
    assert not any("head" in name or "blocks.2" in name for name in weights(tmp_path))
    losses = [entry["loss"] for entry in read_journal(tmp_path).values()]
    assert len(losses) == 6
    assert list(read_journal(tmp_path, kind="validation")) == [3, 6]
    sheets = sorted(path.name for path in (tmp_path / "previews").iterdir())
    assert sheets == ["step-00000000.png", "step-00000006.png"]
    with Image.open(tmp_path / "previews" / sheets[1]) as sheet:
        assert sheet.width > 320 and len(sheet.text["prompts"].splitlines()) == 2
    assert not list(tmp_path.glob(".preview*"))

    found = read_control_spec(tmp_path / "control", read_model_spec(base).transformer)
    net = found.build()
    assert found.config.copies == 2 and net.input.weight.any() and net.outputs[0].weight.any()
    exported = export_step(config(tmp_path, **control(base)), 6)
    assert exported.name == "control-00000006"
    assert (exported / "config.json").read_bytes() == (tmp_path / "control/config.json").read_bytes()


def test_a_resumed_run_equals_the_whole_to_the_bit(base: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    settings = {"dropout": 0.3}
    run(whole, **control(base, control=settings))
    for event in Session(
        config(parts, **control(base, control=settings, saving={"steps": 3})), device="cpu"
    ).events():
        if isinstance(event, StepReport) and event.step == 5:
            break  # as a crash would: nothing of steps 4 and 5 is saved
    run(parts, resume=True, **control(base, control=settings))
    assert same(whole, parts)
    with pytest.raises(ConfigError, match=r"other settings .*control.annotator: canny -> soft"):
        run(parts, resume=True, **control(base, control=settings | {"annotator": "soft"}))


def test_files_beside_the_pictures_or_in_a_folder_are_what_the_annotator_makes(
    base: Path, tmp_path: Path
) -> None:
    beside, apart = tmp_path / "beside", tmp_path / "apart"
    shutil.copytree(pictures(), beside)
    apart.mkdir()
    annotate = Annotator(name="canny").function()
    for path in sorted(pictures().glob("*.png")):
        made = annotate(Image.open(path).convert("RGB"))
        made.save(beside / f"{path.stem}.control.png")
        made.save(apart / path.name)
    data = {"square": True, "held": 4}
    batches = []
    for settings, source in (
        ({"annotator": "canny"}, pictures()),
        ({"annotator": "files"}, beside),
        ({"annotator": "files", "pictures": str(apart)}, pictures()),
    ):
        changes = control(
            base, control=settings, data=data | {"path": str(source), "cache": str(tmp_path / "cache")}
        )
        task = Session(config(tmp_path / "run", **changes), device="cpu").task
        list(task.prepare())
        batches.append(task.data.batch(1))
    first = batches[0]
    assert first.control.shape == first.x0.shape and not torch.equal(first.control, first.x0)
    for other in batches[1:]:
        assert other.keys == first.keys
        assert torch.equal(other.control, first.control) and torch.equal(other.x0, first.x0)

    (apart / "000003.png").unlink()
    changes = control(base, control={"annotator": "files", "pictures": str(apart)})
    with pytest.raises(ConfigError, match="1 of 12 pictures have no control picture in .*apart: 000003"):
        Session(config(tmp_path / "run", **changes), device="cpu")
    with pytest.raises(
        ConfigError, match=r"12 of 12 pictures .* beside it, as 000000.control.png: 000000, 000001"
    ):
        Session(config(tmp_path / "run", **control(base, control={"annotator": "files"})), device="cpu")


def test_another_annotator_has_latents_of_its_own(base: Path, tmp_path: Path) -> None:
    data = {"path": str(pictures()), "square": True, "held": 4, "cache": str(tmp_path / "cache")}

    def encoded(**settings: Any) -> tuple[torch.Tensor, list[str]]:
        task = Session(
            config(tmp_path / "run", **control(base, control=settings, data=data)), device="cpu"
        ).task
        told = [str(event) for event in task.prepare() if "control" in str(event)]
        return task.data.batch(0).control, [line for line in told if "encoded" in line]

    canny, first = encoded(annotator="canny")
    grey, _ = encoded(annotator="grey")
    wide, _ = encoded(annotator="canny", settings={"sigma": 3})
    again, later = encoded(annotator="canny")
    assert "control pictures: 12 of 12, 0 were there" in first[0] and later == []
    assert torch.equal(canny, again) and not torch.equal(canny, grey) and not torch.equal(canny, wide)


def objective_of(base: Path, folder: Path, **settings: Any) -> tuple[ControlMatching, NoisyControlBatch]:
    """The objective of a run whose control net says something, and a batch."""
    task = Session(config(folder, **control(base, control=settings)), device="cpu").task
    list(task.prepare())
    found = task.objective()
    assert isinstance(found, ControlMatching)
    torch.manual_seed(0)
    for layer in (found.network.input, *found.network.outputs):
        torch.nn.init.normal_(layer.weight, std=0.3)
    return found, found.draw(task.data.batch(0))


def test_a_dropped_control_is_one_of_zeros_in_training_and_there_in_validation(
    base: Path, tmp_path: Path
) -> None:
    objective, batch = objective_of(base, tmp_path, dropout=1.0)
    assert not batch.seen.any()
    other = replace(batch, control=torch.randn_like(batch.control))
    loss = partial(objective.losses, generator=None)
    assert torch.equal(loss(batch)["loss"], loss(other)["loss"])
    assert not torch.equal(objective.errors(batch), objective.errors(other))
    kept, batch = objective_of(base, tmp_path, dropout=0.0)
    assert batch.seen.all()


def test_the_base_has_no_gradient_and_the_control_net_has(base: Path, tmp_path: Path) -> None:
    objective, batch = objective_of(base, tmp_path)
    objective.losses(batch)["loss"].backward()
    assert all(weight.grad is None for weight in objective.base.parameters())
    missing = [name for name, weight in objective.network.named_parameters() if weight.grad is None]
    assert missing == []
    (player,) = objective.players()
    moved = {id(weight) for group in player.optimizer.param_groups for weight in group["params"]}
    assert moved == {id(weight) for weight in objective.network.parameters()}


def test_training_goes_on_from_a_control_net(base: Path, tmp_path: Path) -> None:
    run(tmp_path / "first", **control(base, phases=[{"steps": 2, "size": 64}]))
    start = tmp_path / "first/control"
    task = Session(
        config(tmp_path / "second", **control(base, control={"start": str(start)})), device="cpu"
    ).task
    found = task.objective().network.state_dict()
    wanted = (
        read_control_spec(start, read_model_spec(base).transformer).build(dtype=torch.float32).state_dict()
    )
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_the_plan_tells_what_is_frozen_and_what_steers(base: Path, tmp_path: Path) -> None:
    session = Session(config(tmp_path, **control(base)), device="cpu")
    lines, work = "\n".join(session.plan.lines()), session.plan.work
    assert "a ControlNet of 2 blocks beside" in lines
    assert "none of its weights is trained, averaged or saved" in lines
    assert 'made by canny {"high": 0.25, "low": 0.1, "sigma": 1.0}, once' in lines
    task = session.task
    assert isinstance(task, ControlTask)
    assert work.frozen > 0 and work.parameters == work.trained
    more = Session(config(tmp_path, **control(base, control={"copies": 1})), device="cpu").task.workload()
    assert more.operations < work.operations and more.activations < work.activations
    assert "control is not read with the task transformer" in config_warnings(
        config(tmp_path, control={"copies": 1})
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": {"start": "scratch"}}, "model: the task control steers the base model as it is"),
        ({"text": {"train": True}}, "text.train: the task control trains the ControlNet alone"),
        ({"control": {"copies": 3}}, "control.copies is 3, and .* has 3 blocks: at most 2 can be copied"),
        ({"control": {"annotator": "kanny"}}, "no annotator 'kanny': there is canny"),
        ({"control": {"settings": {"blur": 1}}}, "the annotator canny has no setting 'blur'"),
        ({"control": {"annotator": "files", "settings": {"low": 1}}}, "control.settings: the annotator 'files' has"),
        ({"control": {"annotator": "model"}}, "control.model names a model of transformers"),
        ({"control": {"model": "x/y"}}, "control.model names a model of transformers"),
        ({"control": {"pictures": "x"}}, "control.pictures is a folder of control pictures: add"),
        ({"control": {"start": "nowhere"}}, "nowhere/config.json is missing"),
        ({"objective": "sprint"}, "objective: 'sprint' is not one of this task's; it has flow_matching"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused(
    base: Path, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        Session(config(tmp_path / "run", **control(base, **changes)), device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_sprint_model_is_no_base_and_the_refusal_says_what_is(sprint_base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="take a flow model: a ControlNet is trained on the teacher"):
        Session(config(tmp_path, **control(sprint_base)), device="cpu")


@pytest.fixture(scope="module")
def sprint_base(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model, said to be one of few steps."""
    folder = tmp_path_factory.mktemp("sprint") / "model"
    shutil.copytree(base, folder)
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"_class_name": "SanaSprintPipeline", "scheduler": ["diffusers", "SCMScheduler"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    shape = json.loads((folder / "transformer/config.json").read_text()) | {"guidance_embeds": True}
    (folder / "transformer/config.json").write_text(json.dumps(shape))
    (folder / "scheduler/scheduler_config.json").write_text('{"_class_name": "SCMScheduler"}')
    return folder


def test_the_set_of_pictures_is_left_as_it_was() -> None:
    assert not [item.key for item in open_set(pictures()) if item.key.endswith(".control")]
