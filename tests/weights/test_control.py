"""ControlNets as folders of diffusers, both ways, and official files: strict, and refused where they do not fit."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SanaControlNetModel
from torch import Tensor

from sanakit.base.errors import ConfigError, ModelNotFoundError, WeightsError
from sanakit.transformer import ControlConfig, ControlNet, SanaTransformer, TransformerConfig, copy_base
from sanakit.weights import (
    Hints,
    file_to_file,
    file_to_folder,
    folder_to_file,
    open_weights,
    read_control_spec,
    resolve_control,
    save_control,
)
from sanakit.weights.formats import diffusers_control, sana_control_pth, sana_pth
from sanakit.weights.hub import control_files
from sanakit.weights.rules import Join

BASE = TransformerConfig(
    latent_channels=8, width=16, depth=4, heads=2, cross_heads=2, text_width=12, sample_size=32
)
CONFIG = ControlConfig(backbone=replace(BASE, depth=2))


def shaken(module: Any) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.1)
    return module.eval()


def official(base: SanaTransformer, copies: int) -> dict[str, Tensor]:
    """A state dict as `SanaMSControlNet` has it: all of the base, and copies with their projections."""
    state = dict(sana_pth.table(base.config).to_theirs(base.state_dict()))
    for number in range(copies):
        for key in [key for key in state if key.startswith(f"blocks.{number}.")]:
            copied = f"controlnet.{number}.copied_block." + key.removeprefix(f"blocks.{number}.")
            state[copied] = torch.randn_like(state[key])
        for name in ("before_proj", "after_proj")[number > 0 :]:
            state[f"controlnet.{number}.{name}.weight"] = torch.randn(base.config.width, base.config.width)
            state[f"controlnet.{number}.{name}.bias"] = torch.randn(base.config.width)
    return state


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written by diffusers itself."""
    path = tmp_path_factory.mktemp("control")
    shaken(SanaControlNetModel.from_config(diffusers_control.to_config(CONFIG))).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def pth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("official") / "control.pth"
    torch.save({"state_dict": official(shaken(SanaTransformer(BASE)), 2)}, path)
    return path


def test_a_folder_of_diffusers_is_read_and_written_back_to_the_bit(folder: Path, tmp_path: Path) -> None:
    found = read_control_spec(folder, BASE)
    assert found.config == CONFIG
    module = found.build()
    save_control(tmp_path / "ours", found.config, module)
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert config == json.loads((folder / "config.json").read_text()) | {"_diffusers_version": "0.42.1"}
    again = SanaControlNetModel.from_pretrained(tmp_path / "ours").state_dict()
    for name, tensor in open_weights(folder).items():
        assert torch.equal(again[name], tensor), name


@pytest.mark.parametrize(
    "changes", [{"qk_norm": True}, {"qk_norm": True, "guidance_embed": True, "time_scale": 0.001}]
)
def test_newer_networks_keep_what_the_class_of_diffusers_lacks(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    base = shaken(SanaTransformer(replace(BASE, **changes)))
    net = copy_base(base, 3)
    save_control(tmp_path, net.control, net)
    found = read_control_spec(tmp_path, base.config)
    assert found.config == net.control
    for name, tensor in found.build().state_dict().items():
        assert torch.equal(tensor, net.state_dict()[name]), name


def test_the_folder_of_a_pipeline_is_looked_into(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "controlnet")
    assert read_control_spec(tmp_path, BASE).source == tmp_path / "controlnet"
    assert resolve_control(tmp_path) == tmp_path
    sizes = {
        "controlnet/config.json": 1,
        "controlnet/diffusion_pytorch_model.safetensors": 2,
        "vae/config.json": 3,
    }
    assert control_files("a/b", sizes) == {name: sizes[name] for name in list(sizes)[:2]}
    with pytest.raises(ModelNotFoundError, match="a/b holds no ControlNet"):
        control_files("a/b", {"config.json": 1})


def test_an_official_file_is_read_with_the_block_that_its_copies_start_behind(pth: Path) -> None:
    found = read_control_spec(pth, BASE)
    assert found.config.lead == 1 and found.config.copies == 2 and found.config.base_depth == 4
    theirs, ours = torch.load(pth)["state_dict"], found.build().state_dict()
    assert torch.equal(ours["blocks.0.table"], theirs["blocks.0.scale_shift_table"])
    assert torch.equal(
        ours["blocks.2.attention.qkv.weight"], theirs["controlnet.1.copied_block.attn.qkv.weight"]
    )
    assert torch.equal(ours["input.weight"], theirs["controlnet.0.before_proj.weight"])
    assert torch.equal(ours["outputs.1.bias"], theirs["controlnet.1.after_proj.bias"])


def test_an_official_file_becomes_the_folder_that_diffusers_own_script_writes(
    pth: Path, tmp_path: Path
) -> None:
    notes: list[str] = []
    hints = Hints(cross_heads=2)
    config = file_to_folder(pth, tmp_path / "out", hints=hints, announce=notes.append)
    assert isinstance(config, ControlConfig) and config.lead == 0 and "wired as in diffusers" in notes[-1]
    theirs = torch.load(pth)["state_dict"]
    loaded = SanaControlNetModel.from_pretrained(tmp_path / "out").state_dict()
    assert torch.equal(loaded["controlnet_blocks.1.weight"], theirs["controlnet.1.after_proj.weight"])
    assert torch.equal(
        loaded["transformer_blocks.0.scale_shift_table"],
        theirs["controlnet.0.copied_block.scale_shift_table"],
    )
    assert torch.equal(loaded["patch_embed.proj.weight"], theirs["x_embedder.proj.weight"])


def test_no_official_file_is_written(pth: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="a ControlNet is written as a folder"):
        folder_to_file(folder, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="a ControlNet is written as a folder"):
        file_to_file(pth, tmp_path / "x.safetensors", hints=Hints(cross_heads=2))


@pytest.mark.parametrize("changed", ["lacks", "unexpected"])
def test_loading_is_strict(changed: str, pth: Path, tmp_path: Path) -> None:
    state = torch.load(pth)["state_dict"]
    if changed == "lacks":
        del state["controlnet.1.copied_block.attn.qkv.weight"]
    else:
        state["controlnet.1.gate"] = torch.zeros(2)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=f"{changed}.*controlnet.1"):
        read_control_spec(tmp_path / "x.pth", BASE).build()


def test_what_does_not_fit_is_refused_before_weights_are_read(
    folder: Path, pth: Path, tmp_path: Path
) -> None:
    for path in (folder, pth):
        with pytest.raises(ConfigError, match="patch_size 1, and the model has 2: take one"):
            read_control_spec(path, replace(BASE, patch_size=2))
    with pytest.raises(ConfigError, match="made for 4 blocks, and the model has 5"):
        read_control_spec(pth, replace(BASE, depth=5))
    with pytest.raises(ConfigError, match="made for a model of width 16 .* this one has 32"):
        read_control_spec(pth, replace(BASE, width=32))
    (tmp_path / "config.json").write_text('{"_class_name": "SanaTransformer2DModel"}')
    with pytest.raises(ConfigError, match="holds no ControlNet of SANA"):
        read_control_spec(tmp_path, BASE)
    torch.save(sana_pth.table(BASE).to_theirs(SanaTransformer(BASE).state_dict()), tmp_path / "base.pth")
    with pytest.raises(ConfigError, match="its tensors are those of another network"):
        read_control_spec(tmp_path / "base.pth", BASE)
    with pytest.raises(ModelNotFoundError, match="isn't a folder, an official .pth or a hub id"):
        resolve_control("nothing here")


@pytest.mark.parametrize(
    "config", [CONFIG, ControlConfig(backbone=replace(BASE, depth=3), lead=1, base_depth=4)]
)
def test_the_tables_name_every_tensor_once(config: ControlConfig) -> None:
    table = (sana_control_pth if config.lead else diffusers_control).table(config)
    assert sorted(table.our_keys) == sorted(ControlNet(config).state_dict())
    assert any(isinstance(row, Join) for row in table.kept) != bool(config.lead)
