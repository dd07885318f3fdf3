"""The text encoder is trained with the transformer: it moves, is resumed to the bit, and is drawn with and exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sanakit.base import ConfigError
from sanakit.pipeline import ImageRequest, load
from sanakit.text import load_tokenizer, words_in_pieces
from sanakit.training import StepReport
from sanakit.training.session import Session
from sanakit.weights import read_model_spec, resolve
from tests.training.sets import config
from tests.training.test_session import run, same, weights

JOINT: dict[str, Any] = {"text": {"train": True, "vocabulary": "captions"}}


NEW = ("pizza", "fire", "engine", "grinning", "face")
"""The words below that the shipped encoder does not know."""


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures whose captions hold words that the shipped encoder reads letter by letter."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("strangers")
    for number, word in enumerate(["pizza", "fire engine", "grinning face", "a red cube"]):
        Image.new("RGB", (64, 64), (60 * number, 200 - 50 * number, 90)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(word)
    return folder


def changes(folder: Path, **others: Any) -> dict[str, Any]:
    data = {"path": str(folder), "square": True, "captions": {"dropout": 0.2}}
    return {"data": data, "batch": 2} | JOINT | others


def test_a_text_encoder_that_is_trained_is_drawn_with_and_exported(strangers: Path, tmp_path: Path) -> None:
    preview = {"every": 6, "steps": 1, "prompts": ["pizza"]}
    told = run(tmp_path / "run", **changes(strangers, preview=preview, optimizer={"lr": "1e-2"}))
    assert not [line for line in told if "captions" in line or "failed" in line], told
    assert len(list((tmp_path / "run/previews").glob("*.png"))) == 2  # before the first step, and at the end
    base = read_model_spec(resolve("toybox"))
    found = read_model_spec(tmp_path / "run/model")
    before = load_file(base.text_folder / "model.safetensors")
    after = load_file(found.text_folder / "model.safetensors")
    assert after.keys() == before.keys()
    assert all(not torch.equal(after[name], before[name]) for name in before if "layernorm" not in name)
    assert after["embed_tokens.weight"].shape[0] == found.text_config["vocab_size"]
    assert found.text_config["vocab_size"] == base.text_config["vocab_size"] + len(NEW)
    tokenizer = load_tokenizer(found.tokenizer_folder)
    assert words_in_pieces(load_tokenizer(base.tokenizer_folder), "a Pizza, zebra") == ["pizza", "zebra"]
    assert words_in_pieces(tokenizer, "a Pizza, zebra") == ["zebra"]
    image = load(tmp_path / "run/model", device="cpu").images(ImageRequest(prompt="pizza", steps=1))[0]
    assert image.size == (64, 64)


def test_a_resumed_run_equals_the_whole_to_the_bit(strangers: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(whole, **changes(strangers))
    for event in Session(config(parts, saving={"steps": 2}, **changes(strangers)), device="cpu").events():
        if isinstance(event, StepReport) and event.step == 5:
            break  # as a crash would: nothing of steps 4 and 5 is saved
    run(parts, resume=True, **changes(strangers))
    assert same(whole, parts)
    assert any(name.startswith("optim.text_encoder.") for name in weights(whole))
    with pytest.raises(ConfigError, match=r"belongs to other settings .*text: "):
        run(parts, resume=True, **changes(strangers, text={"train": False}))


def test_the_words_of_a_run_stay_when_its_set_grows(strangers: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "set"
    shutil.copytree(strangers, folder)
    run(tmp_path / "run", **changes(folder))
    (folder / "0.txt").write_text("a quattro stagioni pizza")
    longer = changes(folder, phases=[{"steps": 8, "size": 64}])
    assert run(tmp_path / "run", resume=True, **longer)[-1].startswith("step 8: the model is in")


def test_the_text_encoder_has_a_rate_of_its_own(strangers: Path, tmp_path: Path) -> None:
    still = changes(strangers, text={"train": True, "lr": 0})
    run(tmp_path / "still", **still)
    trained = weights(tmp_path / "still")
    before = load_file(read_model_spec(resolve("toybox")).text_folder / "model.safetensors")
    name = "model.text_encoder.layers.0.mlp.up_proj.weight"
    assert torch.equal(trained[name], before["layers.0.mlp.up_proj.weight"].float())
    moved = next(name for name in trained if name.startswith("model.transformer.blocks.0."))
    assert not torch.equal(trained[moved], trained[moved.replace("model.", "ema.", 1)])


def test_micro_batches_and_one_batch_are_the_same_step(strangers: Path, tmp_path: Path) -> None:
    def losses(accumulate: int) -> list[float]:
        values = changes(strangers, accumulate=accumulate)
        session = Session(config(tmp_path / str(accumulate), **values), device="cpu")
        return [event.losses["loss"] for event in session.events() if isinstance(event, StepReport)]

    assert losses(1) == pytest.approx(losses(2), abs=2e-4)


def test_a_run_starts_from_the_text_encoder_of_another(strangers: Path, tmp_path: Path) -> None:
    run(tmp_path / "first", **changes(strangers))
    model = tmp_path / "first/model"
    told = run(tmp_path / "second", **changes(strangers, text={"base": str(model)}))
    assert any("encoded captions: 5 of 5" in line for line in told)
    second = read_model_spec(tmp_path / "second/model")
    shipped = read_model_spec(resolve("toybox"))
    assert second.text_config["vocab_size"] == shipped.text_config["vocab_size"] + len(NEW)
    one = (model / "text_encoder/model.safetensors").read_bytes()
    assert (second.text_folder / "model.safetensors").read_bytes() == one


def test_the_plan_counts_the_text_encoder(strangers: Path, tmp_path: Path) -> None:
    frozen = Session(config(tmp_path, **changes(strangers, text={})), device="cpu").task.workload()
    joint = Session(config(tmp_path, **changes(strangers)), device="cpu").task.workload()
    assert joint.parameters - frozen.parameters == 1_126_880 + 5 * 160
    assert joint.operations > frozen.operations and joint.activations > frozen.activations
    assert "text encoder" in joint.network
