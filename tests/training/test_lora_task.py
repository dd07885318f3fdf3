"""Adapters beside a frozen model: they alone learn, change nothing at first, resume to the bit, draw elsewhere."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sanakit.base import ConfigError
from sanakit.base.errors import DataError
from sanakit.base.text_states import TextStates
from sanakit.layers.lora import LowRank, change
from sanakit.pipeline import ImageRequest, load
from sanakit.training import Message, StepReport, Trainer, World, read_journal
from sanakit.training.export import export_step
from sanakit.training.lora_settings import LoraConfig
from sanakit.training.objectives.prior_preservation import AdapterMatching, NoisyClassBatch
from sanakit.training.session import Session
from sanakit.training.tasks import class_pictures, frozen_base
from sanakit.training.tasks import lora as lora_task
from sanakit.training.tasks.adapters import AdapterSet, adapt, principal
from sanakit.training.tasks.lora import LoraTask
from sanakit.transformer import SanaTransformer, TransformerConfig
from sanakit.weights import LORA_FILE, read_lora
from tests.training.sets import config, pictures
from tests.training.test_session import run, same, weights

SMALL = TransformerConfig(
    width=32, depth=1, heads=2, cross_heads=2, ffn_ratio=2.5, text_width=8, latent_channels=4,
)  # fmt: skip
PRIOR = {"weight": 0.5, "prompts": ["a cube", "a cone"], "count": 5, "steps": 1}


@functools.cache
def tiny() -> str:
    """A small flow model, hardly trained: no weight of it is 0."""
    folder = Path(tempfile.mkdtemp(prefix="sanakit-base-"))
    shape = {"depth": 2, "width": 64, "heads": 2, "cross_heads": 2}
    rate = {"optimizer": {"lr": 0.01}, "schedule": {"warmup": 0}}
    run(folder, phases=[{"steps": 2, "size": 64}], model={"start": "scratch", "changes": shape}, **rate)
    return str(folder / "model")


def lora(**changes: Any) -> dict[str, Any]:
    """Changes of a tiny run that make it one of a tiny model with adapters."""
    settings = {"rank": 2} | changes.pop("lora", {})
    return {"task": "lora", "base": tiny(), "model": {}, "lora": settings} | changes


def session(folder: Path, **changes: Any) -> Session:
    return Session(config(folder, **lora(**changes)), device="cpu")


def begun(folder: Path, **changes: Any) -> tuple[LoraTask, AdapterMatching]:
    """A task that is ready for its first step, and its objective."""
    task = cast(LoraTask, session(folder, **changes).task)
    list(task.prepare())
    return task, cast(AdapterMatching, task.objective())


def test_only_adapters_learn_and_are_kept(tmp_path: Path) -> None:
    made = session(tmp_path, validate=3, preview={"every": 6, "steps": 1})
    task = cast(LoraTask, made.task)
    before = {name: tensor.clone() for name, tensor in task.network.state_dict().items()}
    told = [str(event) for event in made.events() if isinstance(event, Message)]
    assert not [line for line in told if "failed" in line], told
    after = {
        name.replace("_wrapped.", "").replace(".base.", "."): tensor
        for name, tensor in task.network.state_dict().items()
        if ".adapters." not in name
    }
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    found = weights(tmp_path)
    owners = {".".join(name.split(".")[:2]) for name in found}
    assert owners == {"model.trained", "ema.trained", "optim.trained"}
    ups = [tensor for name, tensor in found.items() if name.startswith("model.") and name.endswith(".up")]
    assert len(ups) == 10 and all(bool(up.any()) for up in ups)
    assert read_journal(tmp_path, kind="validation")[6]["loss"] > 0


def test_a_resumed_run_equals_the_whole_to_the_bit(tmp_path: Path) -> None:
    settings = {"init": "pissa", "dropout": 0.2, "targets": ["attention", "ffn.depthwise"]}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    changes = lora(lora=settings)
    run(whole, **changes)
    made = Session(config(parts, saving={"steps": 2}, **changes), device="cpu")
    with pytest.MonkeyPatch.context() as patch, closing(made.events()) as events:
        for event in events:
            if isinstance(event, StepReport) and event.step == 5:
                patch.setattr(Trainer, "save", lambda self, behind=False: None)  # as a crash
                break
    assert any(line.startswith("step 5/6") for line in run(parts, resume=True, **changes))
    assert same(whole, parts)


def velocity(task: LoraTask, model: SanaTransformer) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    latent = torch.randn(2, 32, 2, 2, generator=generator)
    width = task.network_config.text_width
    text = TextStates(torch.randn(2, 4, width, generator=generator), torch.ones(2, 4, dtype=torch.bool))
    with torch.no_grad():
        return cast(Tensor, model(latent, torch.tensor([300.0, 800.0]), text))


@pytest.mark.parametrize(
    ("settings", "bound"),
    [
        ({"init": "kaiming"}, 1e-6),  # attention is computed by another row while training
        ({"init": "gaussian", "rslora": True}, 1e-6),
        ({"init": "pissa", "rank": 8}, 1e-5),
        ({"dora": True, "targets": ["attention", "cross", "ffn"]}, 1e-5),
        ({"frozen": "int8", "targets": ["attention", "cross", "ffn"]}, 1e-2),
    ],
)
def test_the_first_forward_is_the_base_models(tmp_path: Path, settings: dict[str, Any], bound: float) -> None:
    task = cast(LoraTask, session(tmp_path, base="toybox", lora=settings).task)
    wanted = velocity(task, task.network)
    adapters = cast(AdapterSet, task.objective().network)
    found = velocity(task, task.network)
    assert float((found - wanted).norm() / wanted.norm()) <= bound
    for parameter in adapters.trained.parameters():
        torch.nn.init.constant_(parameter, 0.05)
    assert float((velocity(task, task.network) - wanted).norm() / wanted.norm()) > 1e-3


def test_pissa_takes_the_largest_singular_values() -> None:
    weight = torch.randn(24, 16, generator=torch.Generator().manual_seed(0))
    down, up = principal(weight, 4, scale=0.5)
    left, values, right = torch.linalg.svd(weight)
    best = (left[:, :4] * values[:4]) @ right[:4]
    assert torch.allclose(0.5 * up @ down, best, atol=1e-5)
    wide = torch.randn(600, 20) @ torch.randn(20, 700)  # above the size of which all values are computed
    down, up = principal(wide, 20, scale=1.0)
    assert torch.allclose(up @ down, wide, atol=1e-3 * float(wide.norm()))


def test_gradients_pass_through_a_base_in_fewer_bits(tmp_path: Path) -> None:
    """Those of the adapters of an early block come through all later ones; the float32 model's are nearly the same."""
    found, data = {}, {"path": str(pictures()), "square": True, "held": 4}  # a cache holds one dtype: its own
    for frozen in ("fp32", "bf16", "int8"):
        settings = {"frozen": frozen, "targets": ["blocks.0.attention"]}
        form = {"dtype": "bf16", "data": data} if frozen == "bf16" else {}
        task, objective = begun(tmp_path / frozen, base="toybox", lora=settings, **form)
        kept = {p.dtype for p in task.network.parameters() if not p.requires_grad}
        assert (torch.bfloat16 in kept) == (frozen == "bf16")
        batch = objective.draw(task.data.batch(0))
        with torch.autocast("cpu", torch.bfloat16, enabled=frozen == "bf16"):
            objective.losses(batch)["loss"].backward()
        gradients = [p.grad for p in objective.network.parameters() if p.grad is not None]
        assert {gradient.dtype for gradient in gradients} == {torch.float32}
        found[frozen] = torch.cat([gradient.flatten() for gradient in gradients])
    for frozen in ("bf16", "int8"):
        assert torch.cosine_similarity(found["fp32"], found[frozen], dim=0) > 0.99, frozen


def test_class_pictures_are_drawn_once_and_weighed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"lora": {"prior": PRIOR}}
    task, objective = begun(tmp_path, **changes)
    drawn = sorted(path.name for path in (tmp_path / "class").glob("*.png"))
    assert drawn == [f"000{number}.png" for number in range(5)]
    assert (tmp_path / "class/0003.txt").read_text() == "a cone\n"
    with task.batches(objective) as batches:
        batch = batches(0)
    assert isinstance(batch, NoisyClassBatch) and set(batch.prior.captions) <= {"a cube", "a cone"}
    assert batch.keys != batch.prior.keys and not torch.equal(batch.noise, batch.prior.noise)
    parts = {name: value.detach() for name, value in objective.losses(batch).items()}
    assert float(parts["loss"]) == pytest.approx(float(parts["instance"] + 0.5 * parts["prior"]))
    (tmp_path / "class/0002.png").unlink()
    kept = (tmp_path / "class/0001.png").stat().st_mtime_ns
    asked: list[str] = []
    images = class_pictures.Model.images
    monkeypatch.setattr(
        class_pictures.Model,
        "images",
        lambda model, wanted: asked.append(wanted.prompt) or images(model, wanted),
    )
    made = session(tmp_path, **changes)
    told = [event.text for event in made.events() if isinstance(event, Message)]
    assert asked == ["a cube"] and (tmp_path / "class/0001.png").stat().st_mtime_ns == kept
    assert told[-1].startswith("the LoRA is in")
    assert {"loss", "instance", "prior"} <= read_journal(tmp_path)[6].keys()
    again = {"lora": {"prior": PRIOR | {"guidance": 2.0}}}
    with pytest.raises(ConfigError, match=r"were drawn otherwise \(guidance: 4.5 -> 2.0\)"):
        LoraTask(config(tmp_path, **lora(**again)), made.precision, World(), print)


@pytest.mark.parametrize("settings", [{}, {"init": "pissa"}, {"dora": True}, {"targets": ["ffn.depthwise"]}])
def test_class_pictures_may_teach_what_the_base_model_says(tmp_path: Path, settings: dict[str, Any]) -> None:
    changes = {"lora": {"prior": PRIOR | {"target": "base"}} | settings}
    task, objective = begun(tmp_path, **changes)
    with task.batches(objective) as batches:
        batch = batches(0)
    assert isinstance(batch, NoisyClassBatch)
    assert float(objective.losses(batch)["prior"]) < 1e-9  # adapters begin as nothing
    said = objective.predict(batch.prior)[0].detach()
    with torch.no_grad():
        for name, parameter in objective.network.get_submodule("trained").named_parameters():
            if name.endswith("up"):
                parameter.add_(1.0)
    parts = objective.losses(batch)
    moved = objective.predict(batch.prior)[0].detach()
    torch.testing.assert_close(parts["prior"], (moved - said).square().mean(), rtol=1e-4, atol=0)
    assert float(parts["prior"]) > 1e-7
    parts["loss"].backward()
    assert all(p.grad is not None for p in objective.network.get_submodule("trained").parameters())


def test_what_the_base_model_says_costs_a_pass(tmp_path: Path) -> None:
    def operations(**prior: Any) -> float:
        return session(tmp_path, lora={"prior": PRIOR | prior}).plan.work.operations

    pictures, base = operations(), operations(target="base")
    assert 1.1 < base / pictures < 1.3  # forward and back are two passes of adapters, twice


def test_runs_begun_before_there_was_a_target_go_on(tmp_path: Path) -> None:
    assert "target" not in config(tmp_path, **lora(lora={"prior": PRIOR})).identity["lora"]["prior"]
    base = config(tmp_path, **lora(lora={"prior": PRIOR | {"target": "base"}}))
    assert base.identity["lora"]["prior"]["target"] == "base"


def test_pictures_of_the_class_may_be_given(tmp_path: Path) -> None:
    folder = tmp_path / "class pictures"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (64, 64), (40 * number, 90, 10)).save(folder / f"{number}.png")
    with pytest.raises(ConfigError, match="4 of the 4 class pictures have no caption"):
        session(tmp_path / "run", lora={"prior": {"weight": 1, "path": str(folder)}})
    prior = {"weight": 1, "path": str(folder), "prompts": ["a wall"]}
    run(tmp_path / "run", **lora(lora={"prior": prior}))
    assert not (tmp_path / "run/class").exists()


def test_the_file_draws_what_the_preview_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sheets: list[Sequence[Image.Image]] = []
    from sanakit.training import preview

    whole: Callable[..., Image.Image] = preview.captioned_sheet
    monkeypatch.setattr(
        preview, "captioned_sheet", lambda images, *rest: sheets.append(images) or whole(images, *rest)
    )
    drawing = {"every": 6, "steps": 2, "prompts": ["a red cube"]}
    settings = {"init": "pissa", "targets": ["attention", "cross", "ffn.expand"]}
    run(tmp_path, **lora(lora=settings, preview=drawing, optimizer={"lr": 0.02}, ema=0.5))
    found = read_lora(tmp_path / "lora" / LORA_FILE)
    assert found.base == "model"
    assert found.ranks == (4,)  # twice that of the run: what PiSSA began with is taken away
    model = load(tiny(), device="cpu", dtype="fp32", fast="off")
    request = ImageRequest(prompt="a red cube", steps=2, width=64, height=64)
    bare = np.asarray(model.images(request)[0]).astype(int)
    drawn = np.asarray(model.images(replace(request, loras=(str(tmp_path / "lora"),)))[0]).astype(int)
    assert np.abs(drawn - np.asarray(sheets[-1][0])).max() <= 1 < np.abs(drawn - bare).max()


def test_any_checkpoint_is_exported(tmp_path: Path) -> None:
    changes = lora(saving={"steps": 2, "keep": 0}, lora={"dora": True})
    run(tmp_path, **changes)
    made = export_step(config(tmp_path, **changes), 4)
    assert made == tmp_path / "lora-00000004" and sorted(path.name for path in made.iterdir()) == [LORA_FILE]
    last, before = read_lora(tmp_path / "lora" / LORA_FILE), read_lora(made / LORA_FILE)
    assert last.layers.keys() == before.layers.keys()
    assert any(not torch.equal(last.layers[name].up, before.layers[name].up) for name in last.layers)


def test_a_prompt_captions_what_has_none(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (64, 64), (40 * number, 90, 10)).save(folder / f"{number}.png")
    (folder / "2.txt").write_text("a wall")
    data = {"path": str(folder), "square": True}
    task = cast(LoraTask, session(tmp_path / "run", data=data, lora={"prompt": "a photo of sks"}).task)
    captions = [item.captions[0].text for item in task.pictures]
    assert captions == ["a photo of sks", "a photo of sks", "a wall", "a photo of sks"]
    assert not task.uncaptioned


def test_the_plan_says_what_adapters_add(tmp_path: Path) -> None:
    plan = session(tmp_path, lora={"prior": PRIOR | {"steps": 20}}).plan
    text = "\n".join(plan.lines())
    assert "a LoRA of rank 2 beside /" in text and "0.0 M parameters, 1 MB" not in text
    assert " in float32: " in text and "beside 10 layers (attention, cross)" in text
    assert "5 pictures in" in text and "5 of them are drawn first" in text
    alone = session(tmp_path).plan
    whole = Session(config(tmp_path / "other", base=tiny(), model={}), device="cpu").plan
    assert 1.9 < plan.work.operations / alone.work.operations < 2.1
    assert 0.6 < alone.work.operations / whole.work.operations < 0.8  # frozen weights have no gradient
    assert alone.checkpoint_bytes < 0.2 * whole.checkpoint_bytes


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"lora": {"targets": ["atention"]}}, "lora.targets: no layer of the transformer is called 'atention'"),
        ({"lora": {"targets": []}}, "lora.targets is empty"),
        ({"lora": {"rank": 300}}, "lora.rank is 300, and blocks.0.attention.qkv has matrices of 256 x 256: take 256"),
        ({"lora": {"rank": 10, "targets": ["ffn"]}}, "1280 x 9: take 9 .* e.g. ffn.expand and ffn.project"),
        ({"lora": {"frozen": "bf16"}}, "lora.frozen=bf16 needs products in bf16, and this run computes in float32"),
        ({"lora": {"frozen": "int8"}, "compile": True}, "int8 layers have no backward pass in their compiled form"),
        ({"lora": {"dora": True, "init": "pissa"}}, "choose one of them"),
        ({"lora": {"prior": {"prompts": ["a dog"]}}}, "lora.prior.prompts is of class pictures, which .*weight=0"),
        ({"lora": {"prior": {"target": "base"}}}, "lora.prior.target is of class pictures, which .*weight=0"),
        ({"lora": {"prior": {"weight": 1.0}}}, "say what they show"),
        ({"lora": {"prior": {"weight": 1.0, "target": "base"}}}, "say what they show"),
        ({"lora": {"prior": {"weight": 1.0, "prompts": [" "]}}}, "an empty prompt shows no class"),
        ({"lora": {"prior": PRIOR | {"count": 3}}}, "lora.prior.count: 3 class pictures can't join a batch of 4"),
        ({"model": {"start": "scratch"}}, "model: the task lora has no such setting"),
        ({"text": {"train": True}}, "text: the task lora has no such setting"),
        ({"phases": [{"steps": 1, "size": 64, "position_scale": 2.0}]}, r"phases\[0\].position_scale"),
        ({"objective": "sprint"}, "objective: 'sprint' is not one of this task's"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_weights_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], told: str
) -> None:
    monkeypatch.setattr(
        lora_task, "load_transformer", lambda *given, **named: pytest.fail("weights are loaded")
    )
    with pytest.raises(ConfigError, match=told):
        session(tmp_path / "run", **{"base": "toybox"} | changes)
    assert not (tmp_path / "run").exists()


def test_an_empty_folder_and_other_models_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny()
    (tmp_path / "empty").mkdir()
    with pytest.raises((ConfigError, DataError), match="empty"):
        session(tmp_path / "run", data={"path": str(tmp_path / "empty")})
    from sanakit.training.tasks import transformer

    read = transformer.read_base
    monkeypatch.setattr(transformer, "read_base", lambda *given: SimpleNamespace(kind="sprint"))
    with pytest.raises(ConfigError, match="a LoRA is trained on the teacher of a model of few steps"):
        session(tmp_path / "run")
    monkeypatch.setattr(frozen_base, "int8_layers", lambda source: ("blocks.0.attention.qkv",))
    monkeypatch.setattr(transformer, "read_base", read)
    with pytest.raises(ConfigError, match="lora.frozen=fp32: .* is in int8, which has lost its fp32 weights"):
        session(tmp_path / "run", lora={"frozen": "fp32"})


def test_values_of_a_run_add_up_to_its_change() -> None:
    """The rank of a PiSSA run is doubled in its file, and the sum is what the two adapters do together."""
    model = SanaTransformer(SMALL).requires_grad_(False)
    names = ["blocks.0.attention.qkv"]
    adapters = adapt(model, names, LoraConfig(rank=2, init="pissa", alpha=1.0), 0)
    moved = {name: tensor.detach() + 0.1 for name, tensor in adapters.trained.named_parameters()}
    value = adapters.values(moved)[names[0]]
    weight = cast(Tensor, model.get_submodule(names[0]).base.weight)
    first = cast(LowRank, model.get_submodule(f"{names[0]}.adapters.begun").value())
    now = replace(first, down=moved[f"{names[0]}.down"], up=moved[f"{names[0]}.up"])
    assert value.rank == 4
    assert torch.allclose(change(value, weight), change(now, weight) - change(first, weight), atol=1e-5)
