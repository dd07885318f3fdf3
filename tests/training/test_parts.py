"""Small parts of a run: chance per sample, edits of a network, what a step takes, sets to try with, autoencoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from sanakit.autoencoder import DCAE
from sanakit.autoencoder import PRESETS as AUTOENCODERS
from sanakit.base import ConfigError
from sanakit.base.seeds import sample_seed
from sanakit.data import open_set
from sanakit.flow import ShiftedTimes
from sanakit.pipeline import ImageRequest, load
from sanakit.toybox.folder import write_pictures
from sanakit.training import StepReport, read_journal
from sanakit.training.cost import kept_bytes, product_rate, train_operations, transformer_pass
from sanakit.training.edits import attend_by_products, named_weights, recompute
from sanakit.training.objectives.flow_matching import draw
from sanakit.training.session import Session
from sanakit.training.tasks.phases import PHASES, trained_parameters
from sanakit.transformer import PRESETS, SanaTransformer
from sanakit.weights import load_autoencoder, read_autoencoder_config
from tests.training.sets import config, pictures


def test_a_samples_chance_does_not_depend_on_its_neighbours() -> None:
    times = ShiftedTimes(3.0).sample
    seeds = [sample_seed(0, 7, row) for row in range(4)]
    t, noise = draw(seeds, (2, 3), times)
    alone_t, alone = draw(seeds[2:3], (2, 3), times)
    assert torch.equal(noise[2:3], alone) and torch.equal(t[2:3], alone_t)
    assert len({*seeds, sample_seed(0, 8, 0), sample_seed(1, 7, 0)}) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(("every", "count"), [(0, 0), (1, 4), (2, 2), (3, 2)])
def test_recomputed_blocks_give_the_same_gradients(every: int, count: int) -> None:
    def blocks() -> nn.ModuleList:
        torch.manual_seed(0)
        return nn.ModuleList(nn.Sequential(nn.Linear(3, 3), nn.SiLU()) for _ in range(4))

    def gradients(chain: nn.ModuleList) -> list[torch.Tensor]:
        x = torch.ones(2, 3, requires_grad=True)
        y = x
        for block in chain:
            y = block(y)
        y.sum().backward()
        return [p.grad for block in chain for p in block.parameters() if p.grad is not None]

    edited = blocks()
    attend_by_products(edited)
    assert recompute(edited, every) == count
    assert [name for name, _ in named_weights(edited)] == [name for name, _ in blocks().named_parameters()]
    for a, b in zip(gradients(blocks()), gradients(edited), strict=True):
        assert torch.equal(a, b)


def test_a_steps_arithmetic_and_memory_are_counted_without_doing_it() -> None:
    shape = PRESETS["toybox"]
    with torch.device("meta"):
        weights = sum(p.numel() for p in SanaTransformer(shape).parameters())
    tokens = 8 * 8
    operations = train_operations(lambda: transformer_pass(shape, 8, 4))
    assert 0.5 < operations / (6 * weights * tokens) < 1.2  # six per weight and token is the rule of thumb
    small, large = (kept_bytes(lambda s=side: transformer_pass(shape, s, 4)) for side in (8, 16))
    assert 3 < large / small < 4.2  # grows with the tokens
    assert product_rate(torch.device("cpu"), torch.float32, rounds=1) > 1e8


def test_a_set_to_try_with_is_the_same_after_an_interruption(tmp_path: Path) -> None:
    list(write_pictures(tmp_path / "whole", 5, size=32, captions=2))
    walk = write_pictures(tmp_path / "parts", 5, size=32, captions=2)
    assert [next(walk) for _ in range(3)] == [0, 1, 2]
    walk.close()
    assert list(write_pictures(tmp_path / "parts", 5, size=32, captions=2)) == [2, 3, 4, 5]
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "parts" / path.name).read_bytes()
    found = open_set(tmp_path / "whole")
    assert (len(found), found.faults) == (5, ())
    assert all(1 <= len(item.captions) <= 2 for item in found)
    line = json.loads((tmp_path / "whole/captions.jsonl").read_text().splitlines()[0])
    assert line["key"] == "000000"


@pytest.mark.parametrize("phase", ["full", "adaptation", "refinement"])
def test_a_phase_trains_its_layers_and_no_others(phase: str) -> None:
    torch.manual_seed(0)
    model = DCAE(AUTOENCODERS["toybox"])
    trained_parameters(model, PHASES[phase])
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    everything = {name for name, _ in model.named_parameters()}
    assert trained and (trained == everything) == (phase == "full")
    assert PHASES[phase].critic == (phase == "refinement")


def test_an_autoencoder_is_trained_resumed_and_written(tmp_path: Path) -> None:
    settings = {
        "task": "autoencoder", "model": {}, "batch": 2, "phases": [{"steps": 4, "size": 32}], "validate": 4,
        "preview": {"every": 4},
        "autoencoder": {"start": "scratch", "phase": "full", "loss": {"latent_noise": 0.1}},
    }  # fmt: skip
    for folder, stop in (("whole", None), ("parts", 2)):
        for event in Session(
            config(tmp_path / folder, **settings, saving={"steps": 2}), device="cpu"
        ).events():
            if isinstance(event, StepReport) and event.step - 1 == stop:
                break
    list(Session(config(tmp_path / "parts", **settings), device="cpu", resume=True).events())
    shape = read_autoencoder_config(tmp_path / "whole/vae")
    pairs = []
    for folder in ("whole", "parts"):
        model = DCAE(shape)
        load_autoencoder(model, shape, tmp_path / folder / "vae")
        pairs.append(model.state_dict())
    assert all(torch.equal(pairs[0][name], pairs[1][name]) for name in pairs[0])
    assert shape.scaling_factor > 0
    assert read_journal(tmp_path / "whole", kind="validation")[4]["psnr"] > 0
    with Image.open(tmp_path / "whole/previews/step-00000004.png") as sheet:
        assert sheet.size == (2 * 32 + 4, 4 * 32 + 3 * 4)  # four pictures, each beside its reconstruction
    refined = settings | {
        "autoencoder": {"start": str(tmp_path / "whole/vae"), "phase": "refinement"},
        "phases": [{"steps": 2, "size": 32}],
    }
    events = list(Session(config(tmp_path / "refined", **refined), device="cpu").events())
    assert "stay as they are: transformers of before fit it" in str(events[-1])
    losses = [event.losses for event in events if isinstance(event, StepReport)]
    assert {"critic_loss", "real", "fake", "adversarial"} <= losses[0].keys()
    assert read_autoencoder_config(tmp_path / "refined/vae").scaling_factor == shape.scaling_factor


def test_a_trained_autoencoder_decodes_and_is_trained_on(tmp_path: Path) -> None:
    settings = {
        "task": "autoencoder", "model": {}, "batch": 2, "phases": [{"steps": 1, "size": 32}],
        "optimizer": {"lr": 1e-2}, "schedule": {"warmup": 0},
    }  # fmt: skip
    session = Session(config(tmp_path / "run", **settings), device="cpu")
    moved = "are moved by this phase: a transformer that was trained before no longer fits"
    assert moved in "\n".join(session.plan.lines())
    assert moved in str(list(session.events())[-1])
    vae = tmp_path / "run/vae"
    request = ImageRequest(prompt="a red cube", steps=1, width=64, height=64)
    plain, other = load("toybox", device="cpu"), load("toybox", device="cpu", decoder=vae)
    assert plain.images(request)[0].tobytes() != other.images(request)[0].tobytes()
    assert other.provenance["decoder"] == str(vae) and "decoder" not in plain.provenance
    assert other.provenance["weights"] != plain.provenance["weights"]
    cache = {"path": str(pictures()), "square": True, "cache": str(tmp_path / "cache")}
    based = config(tmp_path / "next", base={"autoencoder": str(vae)}, data=cache)
    events = [str(event) for event in Session(based, device="cpu").events()]
    assert any(line.startswith("step 0: encoded pictures: 12 of 12") for line in events)
    found = read_autoencoder_config(tmp_path / "next/model/vae")
    assert found == read_autoencoder_config(vae)


def test_an_autoencoder_is_not_trained_on_several_sizes(tmp_path: Path) -> None:
    phases = [{"steps": 1, "size": 32}, {"steps": 1, "size": 64}]
    with pytest.raises(ConfigError, match="one size and with one micro-batch"):
        Session(config(tmp_path, task="autoencoder", model={}, phases=phases), device="cpu")
    with pytest.raises(ConfigError, match="'huge' is none of"):
        wrong = {"start": "scratch", "preset": "huge"}
        Session(config(tmp_path, task="autoencoder", model={}, autoencoder=wrong), device="cpu")


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"compile": True}, "compile"),
        ({"recompute": 1}, "recompute"),
        ({"preview": {"guidance": 2.0}}, "preview.guidance"),
        ({"text": {"train": True}}, "text"),
        ({"times": {"weighting": "sigma_sqrt"}}, "times"),
        ({"phases": [{"steps": 1, "size": 32, "shift": 3.0}]}, r"phases\[0\]\.shift"),
    ],
)
def test_an_autoencoder_refuses_what_only_transformers_read(
    tmp_path: Path, changed: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{named}: the task autoencoder knows no such setting"):
        Session(config(tmp_path, task="autoencoder", model={}, **changed), device="cpu")
