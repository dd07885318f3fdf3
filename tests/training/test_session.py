"""A run from its config to its model: resumed it is the same, its model draws, its faults are told."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sanakit.base import ConfigError, OutputError, WeightsError
from sanakit.pipeline import ImageRequest, load
from sanakit.training import Message, StepReport, Trainer, World, read_journal, sentences
from sanakit.training.checkpoint import Checkpoints
from sanakit.training.export import export_step
from sanakit.training.session import Session
from sanakit.training.tasks.transformer import TransformerTask
from sanakit.weights import read_model_spec
from tests.training.sets import COUNT, config, pictures


def run(folder: Path, resume: bool = False, **changes: Any) -> list[str]:
    session = Session(config(folder, **changes), device="cpu", resume=resume)
    return [str(event) for event in sentences(session.events())]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(next(max((folder / "checkpoints").glob("step-*")).glob("*.safetensors")))


def same(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_ends_with_a_model_that_draws(tmp_path: Path) -> None:
    events = run(tmp_path / "run", preview={"every": 3, "steps": 1}, validate=3)
    assert events[-1].startswith("step 6: the model is in")
    steps = read_journal(tmp_path / "run")
    assert all(0 < entry["mfu"] <= 1 and entry["images_per_second"] > 0 for entry in steps.values())
    image = load(tmp_path / "run/model", device="cpu").images(ImageRequest(prompt="a red sphere", steps=1))[0]
    assert image.size == (64, 64)
    sheets = sorted(path.name for path in (tmp_path / "run/previews").glob("*.png"))
    assert sheets == ["step-00000000.png", "step-00000003.png", "step-00000006.png"]
    measured = read_journal(tmp_path / "run", kind="validation")
    assert list(measured) == [3, 6]
    assert sorted(measured[3]) == ["loss", "loss_0.1", "loss_0.3", "loss_0.6", "loss_0.8"]
    assert list((tmp_path / "run/tensorboard").glob("events*"))


@pytest.mark.parametrize("changes", [{}, {"accumulate": 2}, {"recompute": 1}])
def test_a_resumed_run_and_its_parts_equal_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole)
    session = Session(config(parts, saving={"steps": 2}, **changes), device="cpu")
    with monkeypatch.context() as patch, closing(session.events()) as events:
        for event in events:
            if isinstance(event, StepReport) and event.step == 5:
                patch.setattr(
                    Trainer, "save", lambda self, behind=False: None
                )  # as a crash: step 5 is not saved
                break
    told = run(parts, resume=True, **changes)
    assert any(line.startswith("step 5/6") for line in told)
    a, b = weights(whole), weights(parts)
    if changes:
        assert all(torch.allclose(a[name], b[name], atol=2e-5) for name in a)
    else:
        assert same(whole, parts)


def test_sizes_follow_each_other_in_one_run(tmp_path: Path) -> None:
    phases = [{"steps": 3, "size": 64}, {"steps": 3, "size": 96, "shift": 4.0, "position_scale": 2.0}]
    run(tmp_path / "run", phases=phases)
    model = load(tmp_path / "run/model", device="cpu")
    assert model.defaults.width == 96
    assert (model.spec.schedule.shift, model.spec.transformer.position_scale) == (4.0, 2.0)


def test_what_is_held_out_is_never_trained_on(tmp_path: Path) -> None:
    seen: set[str] = set()
    session = Session(config(tmp_path, phases=[{"steps": 8, "size": 64}]), device="cpu")
    list(session.task.prepare())
    from sanakit.training.tasks.training_set import held_items

    data = session.task.data
    for number in range(8):
        seen |= set(data.batch(number).keys)
    held = {session.task.pictures[index].key for index in held_items(session.task.pictures, 4)}
    assert len(seen) == COUNT - 4 and not seen & held


def test_every_process_encodes_its_share_and_the_first_looks_over_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"path": str(pictures()), "square": True, "held": 4}
    task = Session(config(tmp_path, data=data), device="cpu").task
    assert isinstance(task, TransformerTask)
    waited: list[tuple[int, int]] = []
    monkeypatch.setattr(World, "wait", lambda world: waited.append(task.cache.count()))
    list(task.cache.fill(World(rank=1, size=2, mode="ddp")))
    told = [
        message.text
        for message in task.cache.fill(World(rank=0, size=2, mode="ddp"))
        if isinstance(message, Message)
    ]
    assert waited == [(COUNT // 2, COUNT), (COUNT, COUNT)]
    assert [line for line in told if "pictures" in line] == [
        f"encoded pictures: {COUNT // 2} of {COUNT // 2}, 0 were there"
    ]
    assert len(task.data.batch(0).keys) == 4


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(ConfigError, match="holds a run at step 6: add --resume to go on"):
        Session(config(tmp_path), device="cpu")
    with pytest.raises(ConfigError, match=r"belongs to other settings \(batch: 4 -> 2\)"):
        run(tmp_path, resume=True, batch=2)
    assert run(tmp_path, resume=True, phases=[{"steps": 8, "size": 64}])[0].startswith("step 7/8")


def test_pictures_that_cannot_be_read_are_passed_over_and_told_of(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for path in sorted(pictures().iterdir()):
        (folder / path.name).write_bytes(path.read_bytes())
    whole = (folder / "000003.png").read_bytes()
    (folder / "000003.png").write_bytes(whole[: len(whole) // 2])
    data = {"path": str(folder), "square": True}
    told = run(tmp_path / "run", data=data)
    assert any("1 can't be read" in line for line in told)
    assert any(line.startswith("step 0: passed over: ") and "broken" in line for line in told), told[:4]
    assert told[-1].startswith("step 6: the model is in")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": {"start": "base", "changes": {"depth": 2}}}, "say model.start=scratch"),
        ({"model": {"start": "grow"}}, "model.start=grow needs model.changes.depth"),
        ({"model": {"start": "grow", "changes": {"depth": 6}}}, "has 10 blocks already: a depth of 6"),
        (
            {"model": {"start": "grow", "changes": {"depth": 12, "width": 8}}},
            "model.changes.width: a network that",
        ),
        (
            {"model": {"start": "grow", "changes": {"depth": 12}, "growth": {"how": "up"}}},
            "model.growth.how",
        ),
        ({"model": {"start": "scratch", "preset": "sana-9b"}}, "'sana-9b' is not one of"),
        (
            {"model": {"start": "scratch", "changes": {"dept": 2}}},
            "unknown key model.changes.dept; did you mean depth",
        ),
        ({"data": {"path": "/nowhere"}}, "nothing at /nowhere"),
        ({"batch": 64}, "fill no batch of 64"),
        ({"parallel": "fsdp"}, "start it by torchrun"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    from sanakit.base import InputError

    with pytest.raises(InputError, match=told):
        run(tmp_path / "run", **changes)


def test_the_plan_tells_what_will_happen(tmp_path: Path) -> None:
    plan = "\n".join(Session(config(tmp_path / "run", schedule={"rule": "sqrt"}), device="cpu").plan.lines())
    assert "12 pictures, 4 held out" in plan
    assert "learning rate 0.000125 (0.001 for 256, by sqrt)" in plan
    assert "0 to 6" in plan and "single of 1" in plan
    assert not (tmp_path / "run").exists()


def test_a_network_grows_from_the_base_model_and_trains_all_its_blocks(tmp_path: Path) -> None:
    run(tmp_path / "base", phases=[{"steps": 1, "size": 64}])
    model = {"start": "grow", "changes": {"depth": 3}, "growth": {"drop": 0}}
    changes: dict[str, Any] = {"base": str(tmp_path / "base/model"), "model": model}
    losses = {}
    for name, more in (("grown", changes), ("as it was", changes | {"model": {"start": "base"}})):
        events = Session(config(tmp_path / name, **more), device="cpu").events()
        losses[name] = next(event.losses["loss"] for event in events if isinstance(event, StepReport))
    assert losses["grown"] == pytest.approx(
        losses["as it was"], rel=1e-5
    )  # new blocks have no effect at first
    run(tmp_path / "trained", **changes)
    kept = weights(tmp_path / "trained")
    assert all(bool(kept[f"model.blocks.{n}.cross.out.weight"].any()) for n in range(3))
    assert read_model_spec(tmp_path / "trained/model").transformer.depth == 3


def test_training_goes_on_from_the_base_models_weights(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"model": {"start": "base"}, "phases": [{"steps": 1, "size": 256}]}
    events = list(Session(config(tmp_path, **changes), device="cpu").events())
    losses = [event.losses["loss"] for event in events if isinstance(event, StepReport)]
    assert losses[0] < 1.0  # a fresh network predicts nothing: its loss is about 2
    assert isinstance(events[-1], Message)


def test_a_base_model_that_changes_under_a_run_is_told(tmp_path: Path) -> None:
    run(tmp_path / "first", phases=[{"steps": 1, "size": 64}])
    base = tmp_path / "first/model"
    changes = {"base": str(base), "model": {"start": "base"}, "phases": [{"steps": 2, "size": 64}]}
    events = Session(config(tmp_path / "run", **changes), device="cpu").events()
    text = base / "text_encoder/model.safetensors"
    told = []
    for event in events:
        told.append(str(event))
        if isinstance(event, StepReport):
            text.write_bytes(text.read_bytes()[:-64] + bytes(64))
    assert "was written anew since this command began" in told[-1] and "--export-step 2" in told[-1]
    assert "anew" not in run(tmp_path / "run", resume=True, **changes)[-1]  # from now on it is the base


def test_any_checkpoint_can_be_exported_and_the_last_one_is_the_model(tmp_path: Path) -> None:
    phases = [{"steps": 3, "size": 32}, {"steps": 3, "size": 64, "shift": 5.0}]
    settings = config(tmp_path / "run", phases=phases, saving={"steps": 2, "keep": 0})
    list(Session(settings, device="cpu").events())
    last = load_file(tmp_path / "run/model/transformer/diffusion_pytorch_model.safetensors")
    for _ in range(2):  # the second time in the place of the first
        again = export_step(settings, 6)
    assert again == tmp_path / "run/model-00000006"
    assert sorted(path.name for path in again.iterdir()) == sorted(
        path.name for path in (tmp_path / "run/model").iterdir()
    )
    same = load_file(again / "transformer/diffusion_pytorch_model.safetensors")
    assert last.keys() == same.keys() and all(torch.equal(last[name], same[name]) for name in last)
    for name in ("transformer/config.json", "model_index.json", "scheduler/scheduler_config.json"):
        assert (again / name).read_bytes() == (tmp_path / "run/model" / name).read_bytes()

    early = export_step(settings, 2)
    first = load_file(early / "transformer/diffusion_pytorch_model.safetensors")
    assert not all(torch.equal(last[name], first[name]) for name in last)
    image = load(early, device="cpu").images(ImageRequest(prompt="a red sphere", steps=1))[0]
    assert image.size == (32, 32)
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]


def test_what_can_not_be_exported_is_one_sentence(tmp_path: Path) -> None:
    settings = config(tmp_path / "run", saving={"steps": 2, "keep": 0})
    with pytest.raises(WeightsError, match="no checkpoint of step 3, but none"):
        export_step(settings, 3)
    list(Session(settings, device="cpu").events())
    with pytest.raises(WeightsError, match="no checkpoint of step 3, but those of steps 2, 4, 6"):
        export_step(settings, 3)
    with pytest.raises(ConfigError, match="belongs to other settings"):
        export_step(config(tmp_path / "run", seed=5), 2)
    (tmp_path / "run/checkpoints/step-00000002/manifest.json").write_text("[]")
    with pytest.raises(WeightsError, match="is damaged .*choose another step"):
        export_step(settings, 2)
    assert not list((tmp_path / "run").glob("*model-*"))


def test_a_second_run_in_one_folder_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with closing(Session(config(folder), device="cpu").events()) as events:
        next(event for event in events if isinstance(event, StepReport))
        before = (folder / "config.yaml").read_bytes()
        with pytest.raises(OutputError, match=r"run is in use: process \d+ on .* trains there since"):
            run(folder, phases=[{"steps": 9, "size": 64}])
        assert (folder / "config.yaml").read_bytes() == before
    assert not (folder / ".lock").exists()
    assert run(folder, resume=True)[-1].startswith("step 6: the model is in")


def test_a_run_whose_listener_goes_is_saved(tmp_path: Path) -> None:
    with closing(Session(config(tmp_path), device="cpu").events()) as events:
        for event in events:
            if isinstance(event, StepReport) and event.step == 3:
                break
    assert Checkpoints(tmp_path).steps() == [3]


def test_what_a_killed_run_left_is_swept_by_the_next(tmp_path: Path) -> None:
    left = [tmp_path / name for name in (".config.0123abcd.part.yaml", "checkpoints/.step-00000002.part/x")]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    run(tmp_path)
    assert not [path for path in left if path.exists()]
    assert not list(tmp_path.rglob(".*"))
