"""Training an autoencoder: phases freeze their layers, a run is resumed and written, and is read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sanakit.autoencoder import DCAE
from sanakit.autoencoder import PRESETS as AUTOENCODERS
from sanakit.base import ConfigError
from sanakit.pipeline import ImageRequest, load
from sanakit.training import StepReport, read_journal
from sanakit.training.session import Session
from sanakit.training.tasks.phases import PHASES, trained_parameters
from sanakit.weights import load_autoencoder, read_autoencoder_config
from tests.training.pair import Pair, losses_of
from tests.training.sets import config, pictures, values


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
    with pytest.raises(ConfigError, match="'huge' is not one of"):
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
    with pytest.raises(ConfigError, match=f"^{named}: the task autoencoder has no such setting"):
        Session(config(tmp_path, task="autoencoder", model={}, **changed), device="cpu")


def test_two_processes_train_an_autoencoder_as_one_does(tmp_path: Path, pair: Pair) -> None:
    settings = {
        "task": "autoencoder", "model": {}, "batch": 4, "phases": [{"steps": 3, "size": 32}], "validate": 3,
        "autoencoder": {"start": "scratch", "phase": "full", "loss": {"latent_noise": 0.1}},
    }  # fmt: skip
    losses = losses_of(values(tmp_path / "one", **settings))
    assert pair(losses_of, values(tmp_path / "two", **settings))[0] == pytest.approx(losses, abs=1e-5)
    one, two = (load_file(next((tmp_path / name / "vae").glob("*.safetensors"))) for name in ("one", "two"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=1e-4, rtol=1e-3)
    critical = {"start": str(tmp_path / "two/vae"), "phase": "refinement"}
    pair(losses_of, values(tmp_path / "refined", **settings | {"autoencoder": critical}))
    assert all(entry["critic_loss"] > 0 for entry in read_journal(tmp_path / "refined").values())
