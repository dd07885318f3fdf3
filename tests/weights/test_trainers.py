"""Checkpoints as trainers and other programs leave them: parts, wrappers around names, suffixes."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sanakit.base.errors import ConfigError, RequestError, WeightsError
from sanakit.transformer import SanaTransformer, TransformerConfig
from sanakit.weights import Hints, file_to_folder, load_transformer, open_checkpoint, read_model_spec, resolve
from sanakit.weights.formats import sana_pth
from tests.oracles.tiny import Recipe, write_tiny

CONFIG = TransformerConfig(width=32, depth=1, heads=1, cross_heads=2, text_width=16, latent_channels=8)


def official(seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    state = sana_pth.table(CONFIG).to_theirs(SanaTransformer(CONFIG).state_dict())
    return {**state, "pos_embed": torch.zeros(1, 32 * 32, 32), "y_embedder.y_embedding": torch.randn(300, 16)}


def trainer_file(path: Path, **options: object) -> Path:
    """What the official trainer's `save_checkpoint` writes."""
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    rng = {
        "torch": torch.get_rng_state(),
        "torch_cuda": [torch.get_rng_state()],
        "numpy": np.random.get_state(),  # noqa: NPY002  what it saves
        "python": random.getstate(),
        "generator": torch.Generator().get_state(),
    }
    content = {
        "state_dict": official(1), "state_dict_ema": official(2), "optimizer": optimizer.state_dict(),
        "scheduler": schedule.state_dict(), "epoch": 3, "step": np.int64(500), "loss": np.float32(0.5),
        "rng_state": rng,
    }  # fmt: skip
    torch.save(content, path, **options)
    return path


def same(found: object, wanted: dict[str, Tensor]) -> bool:
    tensors = dict(found.tensors)  # type: ignore[attr-defined]
    return tensors.keys() == wanted.keys() and all(torch.equal(tensors[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("protocol", [2, 5])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_the_official_trainers_file(tmp_path: Path, legacy: bool, protocol: int) -> None:
    path = trainer_file(
        tmp_path / "epoch_3_step_500.pth",
        _use_new_zipfile_serialization=not legacy,
        pickle_protocol=protocol,
    )
    found = open_checkpoint(path)
    assert same(found, official(1))
    assert found.notes == (f"{path}: state_dict is taken; state_dict_ema is there, too: --weights ema.",)
    assert same(open_checkpoint(path, "model"), official(1)) and open_checkpoint(path, "model").notes == ()
    assert same(open_checkpoint(path, "ema"), official(2)) and open_checkpoint(path, "ema").notes == ()


def test_arrays_of_the_other_numpy(tmp_path: Path) -> None:
    """numpy 1 calls its module numpy.core, numpy 2 numpy._core; a file may come from either."""
    path = trainer_file(tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    here, there = (
        (b"numpy._core", b"numpy.core") if b"numpy._core" in data else (b"numpy.core", b"numpy._core")
    )
    assert here in data
    path.write_bytes(data.replace(here + b".multiarray\n", there + b".multiarray\n"))
    assert same(open_checkpoint(path, "ema"), official(2))


def test_parts_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"state_dict_ema": official(2), "epoch": 1}, path)
    found = open_checkpoint(path)
    assert same(found, official(2)) and "state_dict_ema is taken; nothing else is there" in found.notes[0]
    with pytest.raises(WeightsError, match=r"has no 'state_dict': it has state_dict_ema \(--weights ema\)"):
        open_checkpoint(path, "model")
    torch.save({"state_dict": official(1)}, path)
    assert open_checkpoint(path).notes == ()
    with pytest.raises(WeightsError, match=r"has no 'state_dict_ema': it has state_dict \(--weights model\)"):
        open_checkpoint(path, "ema")
    torch.save(official(1), path)
    assert same(open_checkpoint(path), official(1)) and same(open_checkpoint(path, "model"), official(1))
    save_file(official(1), tmp_path / "a.safetensors")
    for bare in (path, tmp_path / "a.safetensors"):
        with pytest.raises(WeightsError, match="no moving average: leave --weights out"):
            open_checkpoint(bare, "ema")
    torch.save({"optimizer": {"state": {}}, "epoch": 1}, path)
    with pytest.raises(WeightsError, match="holds no weights: it has optimizer, epoch"):
        open_checkpoint(path)


WRAPPED = {
    "plain": "{}",
    "ddp": "module.{}",
    "compiled": "_orig_mod.{}",
    "ddp, compiled": "module._orig_mod.{}",
    "compiled, ddp": "_orig_mod.module.{}",
    "comfy": "model.diffusion_model.{}",
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".CKPT"])
@pytest.mark.parametrize("name", WRAPPED)
def test_wrappers_around_names(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    state = {WRAPPED[name].format(key): value for key, value in official(1).items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    assert same(open_checkpoint(path), official(1))


def test_wrappers_inside_names(tmp_path: Path) -> None:
    inside = {key.replace("blocks.0.", "blocks.0._checkpoint_wrapped_module._fsdp_wrapped_module."): value
              for key, value in official(1).items()}  # fmt: skip
    torch.save({"state_dict": inside}, tmp_path / "a.pth")
    assert same(open_checkpoint(tmp_path / "a.pth"), official(1))


def test_other_networks_of_a_file_are_left_out_with_a_note(tmp_path: Path) -> None:
    state = {f"model.diffusion_model.{key}": value for key, value in official(1).items()}
    save_file(
        {**state, "vae.encoder.weight": torch.zeros(2), "text_encoders.x": torch.zeros(1)},
        tmp_path / "a.ckpt",
    )
    found = open_checkpoint(tmp_path / "a.ckpt")  # a safetensors file by its bytes, whatever its name
    assert same(found, official(1)) and "2 tensors of other networks are left out" in found.notes[0]


def test_two_names_of_one_tensor_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1), "module.a": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a and module\.a are the same tensor's names"):
        open_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "name", ["x.pth", "x.PTH", "x.ckpt", "x.pt", "x.bin", "x.safetensors", "x", "owner/name"]
)
def test_a_file_that_is_here_is_not_looked_up_elsewhere(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hub(*args: object, **named: object) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("sanakit.weights.names._from_hub", hub)
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    trainer_file(Path(name))
    assert resolve(name) == Path(name)
    file_to_folder(Path(name), tmp_path / "folder", hints=Hints(cross_heads=2))
    assert (tmp_path / "folder/config.json").exists()


def test_a_whole_model_around_either_part(tmp_path: Path) -> None:
    parts = write_tiny(tmp_path / "parts", Recipe())
    path = trainer_file(tmp_path / "a.pth")
    for part, seed in (("model", 1), ("ema", 2)):
        hints = Hints(cross_heads=2, weights=part)  # type: ignore[arg-type]
        found = read_model_spec(path, parts=parts, hints=hints)
        assert found.weights == part and "taken for granted" in found.notes[0]
        file_to_folder(path, tmp_path / part, hints=hints)
        ours = sana_pth.table(CONFIG).to_ours(official(seed))
        again = SanaTransformer(CONFIG)
        load_transformer(again, CONFIG, tmp_path / part)
        assert all(torch.equal(again.state_dict()[key], ours[key]) for key in ours)
    with pytest.raises(RequestError, match="is a folder, which says itself"):
        read_model_spec(parts, hints=Hints(weights="ema"))
    with pytest.raises(ConfigError, match="holds a transformer only: give a whole model for the rest"):
        read_model_spec(path)
