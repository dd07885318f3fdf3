"""Official `.pth` and diffusers folder, both ways, and `.pth` files used as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sanakit.base.dialect import DIFFUSERS, OFFICIAL
from sanakit.base.errors import ConfigError, OutputError, WeightsError
from sanakit.transformer import SanaTransformer, TransformerConfig
from sanakit.weights import (
    Hints,
    file_to_folder,
    folder_to_file,
    load_transformer,
    open_weights,
    read_model_spec,
    read_pth,
    save_transformer,
)
from sanakit.weights.formats import sana_pth

CONFIGS = [
    TransformerConfig(latent_channels=8, width=32, depth=2, heads=1, cross_heads=2, text_width=16),
    TransformerConfig(
        latent_channels=4, width=64, depth=3, heads=2, cross_heads=4, text_width=6, qk_norm=True
    ),
    TransformerConfig(
        width=64, depth=1, heads=2, cross_heads=2, text_width=6, qk_norm=True, guidance_embed=True
    ),
    TransformerConfig(width=32, depth=1, heads=1, cross_heads=1, text_width=6, ffn_ratio=2.25, patch_size=2),
    TransformerConfig(
        width=32, depth=1, heads=1, cross_heads=1, text_width=6, sample_size=64, position_scale=1.0
    ),
]


def official(config: TransformerConfig, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """A random checkpoint as the official code saves it, with the buffers that we drop."""
    state = sana_pth.table(config).to_theirs(SanaTransformer(config).to(dtype).state_dict())
    tokens = (config.sample_size // config.patch_size) ** 2
    state["pos_embed"] = torch.zeros(1, tokens, config.width)
    state["y_embedder.y_embedding"] = torch.randn(300, config.text_width)
    if config.guidance_embed:
        state |= {"logvar_linear.weight": torch.randn(1, config.width), "logvar_linear.bias": torch.randn(1)}
    return state


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        value.dtype == second[key].dtype and torch.equal(value, second[key]) for key, value in first.items()
    )


@pytest.mark.parametrize("config", CONFIGS)
def test_pth_to_diffusers_to_pth_is_bit_equal(config: TransformerConfig, tmp_path: Path) -> None:
    from diffusers import SanaTransformer2DModel

    before = official(config)
    torch.save({"state_dict": before, "epoch": 1}, tmp_path / "a.pth")
    found = file_to_folder(
        tmp_path / "a.pth", tmp_path / "folder", hints=Hints(cross_heads=config.cross_heads)
    )
    assert found == config.with_dialect(OFFICIAL)
    theirs = SanaTransformer2DModel.from_pretrained(tmp_path / "folder").state_dict()
    assert torch.equal(
        torch.cat([theirs[f"transformer_blocks.0.attn1.to_{k}.weight"] for k in "qkv"]),
        before["blocks.0.attn.qkv.weight"],
    )
    assert folder_to_file(tmp_path / "folder", tmp_path / "b.pth") == config
    after = read_pth(tmp_path / "b.pth")
    assert same(after, {key: before[key] for key in before if key not in sana_pth.table(config).dropped})


def test_folder_to_pth_to_folder_is_bit_equal(sana_folder: Path, tmp_path: Path) -> None:
    config = folder_to_file(sana_folder, tmp_path / "a.pth")  # the folder of the whole model will do
    assert config == read_model_spec(sana_folder).transformer
    size = (tmp_path / "a.pth").stat().st_size
    assert size < 1.5 * (sana_folder / "transformer/diffusion_pytorch_model.safetensors").stat().st_size
    # A width of 16 is below one official head of 32, so the config differs in heads; tensors do not.
    ours = sana_pth.table(config).to_ours(read_pth(tmp_path / "a.pth"))
    save_transformer(tmp_path / "again", config, ours)
    assert same(dict(open_weights(tmp_path / "again")), dict(open_weights(sana_folder / "transformer")))


def test_dtype_shards_and_null_caption(tmp_path: Path) -> None:
    config = CONFIGS[0]
    torch.save(official(config), tmp_path / "a.pth")  # a bare state dict is read too
    options = {"dtype": torch.bfloat16, "max_shard_size": "20KB", "variant": "bf16"}
    file_to_folder(tmp_path / "a.pth", tmp_path / "folder", hints=Hints(cross_heads=2), **options)  # type: ignore[arg-type]
    weights = open_weights(tmp_path / "folder", variant="bf16")
    assert len(list((tmp_path / "folder").glob("*.bf16-*.safetensors"))) > 1
    assert {entry.dtype for entry in weights.entries.values()} == {"BF16"}
    null = torch.randn(300, 16)
    folder_to_file(tmp_path / "folder", tmp_path / "b.pth", dtype=torch.float16, null_caption=null)
    found = read_pth(tmp_path / "b.pth")
    assert torch.equal(found["y_embedder.y_embedding"], null.half())
    assert {value.dtype for value in found.values()} == {torch.float16}
    with pytest.raises(WeightsError, match=r"null_caption is \[300, 15\]"):
        folder_to_file(tmp_path / "folder", tmp_path / "c.pth", null_caption=torch.zeros(300, 15))


def test_nothing_is_overwritten_unless_forced(tmp_path: Path) -> None:
    source, folder, path = tmp_path / "a.pth", tmp_path / "folder", tmp_path / "b.pth"
    torch.save(official(CONFIGS[0]), source)
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        file_to_folder(source, folder, hints=Hints(cross_heads=2))
    assert [file.name for file in folder.iterdir()] == ["mine.txt"]
    file_to_folder(source, folder, hints=Hints(cross_heads=2), force=True)
    with pytest.raises(OutputError, match="exists already"):
        folder_to_file(folder, path)
    assert path.read_text() == "mine"
    folder_to_file(folder, path, force=True)
    with pytest.raises(OutputError):
        folder_to_file(folder, path / "below.pth")


def test_what_a_pth_does_not_tell(tmp_path: Path) -> None:
    state = official(CONFIGS[0])
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    with pytest.raises(
        ConfigError, match=r"width 32, whose cross_heads can't be told \(known: 16 at 1152, 20 at 2240\)"
    ):
        sana_pth.infer_config(shapes)
    told = sana_pth.infer_config(shapes, cross_heads=4, sample_size=128, position_scale=0.5)
    assert (told.cross_heads, told.sample_size, told.position_scale) == (4, 128, 0.5)
    del shapes["pos_embed"]
    assert sana_pth.infer_config(shapes, cross_heads=4).sample_size == 32
    with pytest.raises(
        WeightsError, match=r"not a SANA image transformer: x_embedder\.proj\.weight is missing"
    ):
        sana_pth.infer_config({"conv_in.weight": (1, 2, 3)})
    with pytest.raises(WeightsError, match=r"x_embedder\.proj\.weight has shape \[32, 8, 1, 2, 2\]"):
        sana_pth.infer_config({**shapes, "x_embedder.proj.weight": (32, 8, 1, 2, 2)}, cross_heads=2)
    with pytest.raises(WeightsError, match=r"lacks blocks\.1\.scale_shift_table"):
        missing = {key: value for key, value in state.items() if key != "blocks.1.scale_shift_table"}
        torch.save(missing, tmp_path / "a.pth")
        file_to_folder(tmp_path / "a.pth", tmp_path / "folder", hints=Hints(cross_heads=2))
    assert not (tmp_path / "folder").exists()


def test_a_pth_with_the_other_parts_of_a_folder(sana_folder: Path, tmp_path: Path) -> None:
    config, path = CONFIGS[0], tmp_path / "a.pth"
    torch.save({"state_dict": official(config)}, path)
    with pytest.raises(ConfigError, match="holds a transformer only"):
        read_model_spec(path)
    found = read_model_spec(path, parts=sana_folder, cross_heads=2)
    assert found.dialect == OFFICIAL and found.transformer == config.with_dialect(OFFICIAL)
    assert found.transformer_source == path and found.text_folder == sana_folder / "text_encoder"
    with torch.device("meta"):
        module = SanaTransformer(found.transformer)
    load_transformer(module, found.transformer, found.transformer_source, dtype=torch.bfloat16)
    assert module.patch.weight.dtype is torch.bfloat16
    assert replace(read_model_spec(sana_folder), dialect=DIFFUSERS) == read_model_spec(sana_folder)
