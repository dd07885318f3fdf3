"""Toybox on one GPU, walked through on the CPU at a toy size: data, clock, a step of every stage that trains."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from recipes import gpu_autoencoder, gpu_loop, gpu_scenes, gpu_sprint
from recipes.gpu_autoencoder import autoencoder_losses, encode_latents, train_autoencoder, train_decoder
from recipes.gpu_flow import FlowData, FlowLosses, dropped, train_flow
from recipes.gpu_loop import Learner, Pace, recorded, run_for
from recipes.gpu_run import GpuRun
from recipes.gpu_scenes import CAPTIONS, UNEVEN, SceneTensors, render_pictures, tensors_of
from recipes.gpu_sprint import SprintTraining, train_sprint
from recipes.toybox import load_decoder
from recipes.toybox_alignment import Aligned
from recipes.toybox_contrast import mirrored
from recipes.toybox_model import MODEL, UNPLACED, between, read_captions, shows_two, uneven_caption
from recipes.toybox_second import shipped_autoencoder, shipped_networks
from recipes.toybox_shards import keep
from sanakit.base import OutputError
from sanakit.text import load_tokenizer
from sanakit.toybox.captions import caption
from sanakit.toybox.folder import render_uint8
from sanakit.toybox.grammar import Scene
from sanakit.toybox.sampling import sample_scene
from sanakit.training.tasks.network import load_base
from sanakit.weights import read_model_spec, resolve

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """With one, two, three and four objects."""
    found = [sample_scene(number) for number in range(12)]
    assert {len(scene.objects) for scene in found} >= {1, 2, 3}
    return found


@pytest.fixture(scope="module")
def tensors(scenes: list[Scene]) -> SceneTensors:
    return tensors_of(scenes, first=5)


def test_scenes_of_any_number_of_objects_are_rendered_together(
    scenes: list[Scene], tensors: SceneTensors
) -> None:
    found = torch.cat(list(render_pictures(tensors, 48, compiled=False)))
    wanted = torch.stack([render_uint8(scene, 48, compiled=False) for scene in scenes])
    assert torch.equal(found, wanted)


def test_captions_are_those_of_the_scenes(scenes: list[Scene], tensors: SceneTensors) -> None:
    tokenizer = load_tokenizer(MODEL / "tokenizer")
    rows, variants = torch.tensor([0, 3, 11]), torch.tensor([1, 0, CAPTIONS - 1])
    seeds = [
        (5 + row) * CAPTIONS + variant for row, variant in zip(rows.tolist(), variants.tolist(), strict=True)
    ]
    lines = [
        (uneven_caption if variant < UNEVEN and shows_two(scenes[row]) else caption)(
            scenes[row], random.Random(seed)
        )
        for row, variant, seed in zip(rows.tolist(), variants.tolist(), seeds, strict=True)
    ]
    wanted = read_captions(tokenizer, lines)
    found = tensors.captions(rows, variants, wanted.words)
    for field in fields(wanted):
        assert torch.equal(getattr(found, field.name), getattr(wanted, field.name)), field.name
    nothing = dropped(found, read_captions(tokenizer, [""]), share=1.0)
    assert nothing.mask.sum(1).tolist() == [1, 1, 1] and nothing.place.tolist() == [UNPLACED] * 3


def test_the_rate_rises_and_falls_with_the_time() -> None:
    pace = Pace(lr=1.0, warmup=0.1, cooldown=0.5)
    shares = (0.0, 0.05, 0.1, 0.4, 0.75, 1.0, 1.2)
    assert [round(pace.factor(done), 6) for done in shares] == [0.0, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0]


def test_a_run_ends_with_its_time_and_tells_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, told = iter(range(100)), list[str]()
    monkeypatch.setattr(gpu_loop.time, "monotonic", lambda: float(next(clock)))
    done = list[float]()

    def step(number: int, share: float) -> dict[str, torch.Tensor]:
        done.append(share)
        return {"loss": torch.tensor(0.5)}

    assert run_for(10.0, step, told.append, report=4.0) == len(done) == 9
    assert done == sorted(done) and done[-1] < 1
    assert told[0] == "1/10 s, step 1: loss 0.5" and len(told) == 3


def test_a_run_that_is_stopped_keeps_what_it_has() -> None:
    told = list[str]()

    def step(number: int, share: float) -> dict[str, torch.Tensor]:
        if number == 3:
            raise KeyboardInterrupt
        return {}

    assert run_for(1000.0, step, told.append) == 3
    assert told[-1] == "stopped after 3 steps; the averaged weights are written"


def test_scenes_are_sampled_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scenes.jsonl.gz"
    with monkeypatch.context() as broken:
        broken.setattr(gpu_scenes.gzip, "open", lambda *_, **__: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OutputError, match="full"):
            gpu_scenes.write_scenes(path, 2, workers=1)
    assert not path.exists(), "what is half written would be taken for all of it"
    gpu_scenes.write_scenes(path, 2, workers=1)
    found = gpu_scenes.read_scenes(path, None, workers=2, captions=1)
    assert torch.equal(found.objects, tensors_of([sample_scene(0), sample_scene(1)], captions=1).objects)


def test_a_learner_moves_towards_less_loss_and_keeps_an_average() -> None:
    network = torch.nn.Linear(2, 1)
    learner = Learner(network, Pace(lr=0.1, warmup=1e-9, ema=0.5, weight_decay=0.1))
    assert [group["weight_decay"] for group in learner.optimizer.param_groups] == [0.1, 0.0]
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    compute = recorded(learner.gradients(lambda: {"loss": network(x).square().mean()}))
    losses = []
    for _ in range(20):
        losses.append(float(compute()["loss"]))
        learner.step(0.2)
    assert losses[-1] < 0.5 * losses[0]
    kept = learner.average.weights["weight"]
    assert not torch.equal(kept, network.weight) and kept.shape == network.weight.shape


def test_a_stage_says_what_it_needs(tmp_path: Path) -> None:
    for stage in (train_autoencoder, train_decoder, encode_latents, train_flow):
        with pytest.raises(SystemExit, match="is not there: run the stage before this one first"):
            stage(GpuRun(folder=tmp_path))


def test_a_side_is_said_both_ways(tensors: SceneTensors) -> None:
    tokenizer = load_tokenizer(MODEL / "tokenizer")
    sided = (tensors.sided >= 0).nonzero()[:, 0]
    assert 0 < len(sided) < len(tensors)
    words = read_captions(tokenizer, [""]).words
    true = tensors.captions(sided, tensors.sided[sided].long(), words)
    false = tensors.captions(sided, torch.full_like(sided, CAPTIONS), words)
    for mine, other in zip(true.ids, false.ids, strict=True):
        mine, other = (tokenizer.decode(ids, skip_special_tokens=True) for ids in (mine, other))
        assert mine != other and mirrored(mine) == other


@pytest.fixture
def run(tensors: SceneTensors, tmp_path: Path) -> GpuRun:
    """A run with scenes, and noise for latents."""
    keep(tmp_path / "scenes.pt", vars(tensors))
    latents = torch.randn(len(tensors), 32, 8, 8)
    keep(tmp_path / "latents.pt", {"latents": latents.to(torch.bfloat16), "factor": torch.tensor(0.5)})
    return GpuRun(folder=tmp_path, held=2)


class NoHost(TorchDispatchMode):
    """Refuses what a CUDA graph can't record: values that the host asks for, and constants that it brings."""

    refused = ("_local_scalar_dense", "nonzero", "lift_fresh", "is_nonzero", "equal", "masked_select")

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.__name__.partition(".")[0]
        assert name not in self.refused, f"{name} can't be recorded"
        return func(*args, **(kwargs or {}))


def test_steps_can_be_recorded(run: GpuRun) -> None:
    """Each once, which fills caches, then with an eye on what it asks the host."""
    model, _ = shipped_autoencoder()
    training = SprintTraining(MODEL, batch=4)
    data, (_, joint) = FlowData(run, training.empty), shipped_networks()
    flow = FlowLosses(Aligned(joint, 4), sides=2)

    def sprint(number: int) -> dict[str, Tensor]:
        rows = data.draw_rows(4)
        return training.losses(number, data.x0(rows), data.captions(rows, dropout=0.5))

    steps = [
        Learner(model, Pace(lr=1e-4)).gradients(lambda: autoencoder_losses(model, torch.zeros(1, 3, 32, 32))),
        Learner(flow.model, Pace(lr=1e-4)).gradients(lambda: flow(data, data.draw_rows(3, two=0.5))),
        Learner(training.student, Pace(lr=1e-4)).gradients(lambda: sprint(0), "student_loss"),
        Learner(training.critic, Pace(lr=1e-4)).gradients(lambda: sprint(1), "critic_loss"),
    ]
    for step in steps:
        step()
        with NoHost():
            found = step()
        assert all(bool(torch.isfinite(value)) for value in found.values())
    for network in (model, flow.model, training.student, training.critic):
        assert all(p.grad is not None for p in network.parameters())


def test_the_student_follows_its_teacher(tmp_path: Path) -> None:
    """Of a teacher that has not moved it is Toybox-Sprint; else it moves as the teacher has."""
    shipped = load_base(read_model_spec(resolve("toybox-sprint")), torch.float32, torch.device("cpu"))
    other = tmp_path / "model"
    copytree(MODEL, other)
    path = other / "transformer/diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    save_file({**weights, "proj_out.bias": weights["proj_out.bias"] + 0.25}, path)
    for folder, moved in ((MODEL, 0.0), (other, 0.25)):
        student = SprintTraining(folder, batch=2).student.transformer
        for (name, mine), theirs in zip(student.named_parameters(), shipped.parameters(), strict=True):
            wanted = theirs + moved if name == "head.out.bias" else theirs
            assert torch.allclose(mine, wanted, atol=2e-3), name


def test_data_of_a_run(run: GpuRun) -> None:
    data = FlowData(run, read_captions(load_tokenizer(MODEL / "tokenizer"), [""]))
    assert data.x0(torch.tensor([1])).std() < 0.7, "latents come scaled"
    rows = data.draw_rows(64, two=0.5)
    assert int(rows.max()) < len(data.scenes) - 2 and bool(data.scenes.two[rows[:32]].all())
    assert int(data.held_rows(4).min()) >= len(data.scenes) - 2


def test_weights_between_two_networks() -> None:
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    wanted = 0.25 * one.weight.detach() + 0.75 * other.weight.detach()
    assert torch.allclose(between(one, other, 0.75).weight, wanted)


def test_a_decoder_moves_alone() -> None:
    """The encoder keeps its latents, on which everything else was trained."""
    model, _ = shipped_autoencoder()
    other = {name: value.to(torch.bfloat16) + 1 for name, value in model.state_dict().items()}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_decoder(model, other)
    for name, value in model.state_dict().items():
        wanted = other[name].float() if name.startswith("decoder.") else before[name]
        assert torch.equal(value, wanted), name


def test_the_student_of_every_minute_is_kept(run: GpuRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_for(seconds: float, step: Callable[[int, float], object], say: object) -> int:
        return len([step(number, done) for number, done in enumerate((0.1, 0.3, 0.7, 0.75, 0.9))])

    monkeypatch.setattr(gpu_sprint, "run_for", run_for)
    copytree(MODEL, run.folder / "model")
    train_sprint(replace(run, batch=2, seconds=90.0))
    shipped, found = read_model_spec(resolve("toybox-sprint")), []
    for name in ("sprint-1", "sprint"):
        spec = read_model_spec(run.folder / name)
        assert (spec.kind, spec.schedule, spec.about) == ("sprint", shipped.schedule, shipped.about)
        found.append(load_base(spec, torch.float32, torch.device("cpu")).head.out.bias)
    assert not torch.equal(*found)
    assert not (run.folder / "sprint-0").exists()


def test_the_decoder_is_trained_for_itself(
    tensors: SceneTensors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        gpu_autoencoder, "run_for", lambda seconds, step, say: len([step(n, 0.3) for n in (1, 2)])
    )
    keep(tmp_path / "numbers.pt", vars(tensors.map(lambda x: x[:3])))
    train_decoder(GpuRun(folder=tmp_path, held=1, batch=1))
    found = torch.load(tmp_path / "autoencoder.pt", weights_only=True)
    before = shipped_autoencoder()[0].state_dict()
    moved = {name for name in before if not torch.equal(found[name], before[name].to(torch.bfloat16))}
    assert moved and all(name.startswith("decoder.") for name in moved)
