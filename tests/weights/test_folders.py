"""Folders cross over: ours load in diffusers and transformers, theirs load here, bit-equal both ways."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sanakit.autoencoder import DCAE, AutoencoderConfig, Stage
from sanakit.base.dialect import DIFFUSERS, OFFICIAL
from sanakit.base.errors import ConfigError, OutputError, WeightsError
from sanakit.text import build_gemma
from sanakit.transformer import SanaTransformer, TransformerConfig
from sanakit.weights import (
    ModelSpec,
    Schedule,
    load_autoencoder,
    load_text_encoder,
    load_transformer,
    open_weights,
    read_model_spec,
    save_autoencoder,
    save_text_encoder,
    save_transformer,
    write_folder,
)
from sanakit.weights.formats import diffusers_autoencoder, diffusers_transformer
from sanakit.weights.formats.fields import read_json

TRANSFORMERS = [
    TransformerConfig(latent_channels=4, width=8, depth=1, heads=2, cross_heads=2, text_width=8),
    TransformerConfig(width=32, depth=3, heads=2, cross_heads=4, text_width=12, patch_size=2, qk_norm=True),
    TransformerConfig(
        width=24, depth=2, heads=3, cross_heads=1, text_width=5, qk_norm=True, guidance_embed=True
    ),
    TransformerConfig(
        width=16, depth=2, heads=1, cross_heads=2, text_width=5, sample_size=64, position_scale=2.0
    ),
]
RES, EVIT = Stage("res", 8, 2), Stage("evit", 8, 1, (5,))
AUTOENCODERS = [
    AutoencoderConfig(latent_channels=4, head_dim=2, encoder=(RES, EVIT), decoder=(RES, EVIT)),
    AutoencoderConfig(
        latent_channels=4,
        head_dim=4,
        encoder=(Stage("res", 8, 0), RES, Stage("evit", 8, 2, (3, 5))),
        decoder=(Stage("res", 4, 0), Stage("res", 8, 3), Stage("evit", 8, 1)),
        downsample="unshuffle",
        upsample="shuffle",
        decoder_out_act="silu",
        encoder_shortcut=False,
        decoder_shortcut=False,
        scaling_factor=0.5,
    ),
]


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        value.dtype == second[key].dtype and torch.equal(value, second[key]) for key, value in first.items()
    )


def on_meta(build: type[nn.Module], config: object) -> nn.Module:
    with torch.device("meta"):
        return build(config)


@pytest.mark.parametrize("config", TRANSFORMERS)
def test_our_transformer_loads_in_diffusers_and_back(config: TransformerConfig, tmp_path: Path) -> None:
    from diffusers import SanaTransformer2DModel
    from safetensors.torch import load_file

    ours = SanaTransformer(config)
    save_transformer(tmp_path, config, ours)
    theirs = SanaTransformer2DModel.from_pretrained(tmp_path)
    assert same(theirs.state_dict(), diffusers_transformer.table(config).to_theirs(ours.state_dict()))
    theirs.save_pretrained(tmp_path / "again")
    file = "diffusion_pytorch_model.safetensors"
    # Equal but for their order: ours puts first what can be used where it is mapped (write_safetensors).
    assert same(load_file(tmp_path / "again" / file), load_file(tmp_path / file))
    again = on_meta(SanaTransformer, config)
    assert diffusers_transformer.from_config(read_json(tmp_path / "again/config.json")) == config
    load_transformer(again, config, tmp_path / "again")
    assert same(again.state_dict(), ours.state_dict())


@pytest.mark.parametrize("config", AUTOENCODERS)
def test_our_autoencoder_loads_in_diffusers_and_back(config: AutoencoderConfig, tmp_path: Path) -> None:
    from diffusers import AutoencoderDC

    ours = DCAE(config)
    save_autoencoder(tmp_path, config, ours)
    theirs = AutoencoderDC.from_pretrained(tmp_path)
    assert same(theirs.state_dict(), diffusers_autoencoder.table(config).to_theirs(ours.state_dict()))
    theirs.save_pretrained(tmp_path / "again")
    again = on_meta(DCAE, config)
    assert diffusers_autoencoder.from_config(read_json(tmp_path / "again/config.json")) == config
    load_autoencoder(again, config, tmp_path / "again")
    assert same(again.state_dict(), ours.state_dict())


def test_text_encoder_with_and_without_prefix(sana_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import Gemma2Model

    config = read_json(sana_folder / "text_encoder/config.json")
    plain = build_gemma(config, "meta")
    load_text_encoder(plain, sana_folder / "text_encoder")
    tensors = load_file(sana_folder / "text_encoder/model.safetensors")
    prefixed = {f"model.{key}": value for key, value in tensors.items()} | {
        "lm_head.weight": torch.zeros(2, 2)
    }
    save_file(prefixed, tmp_path / "model.safetensors")
    other = build_gemma(config, "meta")
    load_text_encoder(other, tmp_path)
    assert same(plain.state_dict(), tensors) and same(other.state_dict(), tensors)
    save_text_encoder(tmp_path / "written", config, plain)
    assert same(Gemma2Model.from_pretrained(tmp_path / "written").state_dict(), tensors)


def parts(spec: ModelSpec) -> dict[str, Any]:
    """The three modules of a folder, loaded onto meta-built ones."""
    transformer = on_meta(SanaTransformer, spec.transformer)
    load_transformer(transformer, spec.transformer, spec.transformer_source)
    autoencoder = on_meta(DCAE, spec.autoencoder)
    load_autoencoder(autoencoder, spec.autoencoder, spec.autoencoder_folder)
    text = build_gemma(spec.text_config, "meta")
    load_text_encoder(text, spec.text_folder)
    return {"transformer": transformer, "autoencoder": autoencoder, "text_encoder": text}


@pytest.mark.parametrize("kind", ["sana", "sprint"])
def test_a_whole_folder_is_bit_equal_after_both_have_written_it(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    import diffusers

    source: Path = request.getfixturevalue(f"{kind}_folder")
    spec = read_model_spec(source)
    assert (spec.kind, spec.dialect, spec.instruct, spec.bins) == (
        kind,
        DIFFUSERS,
        True,
        True,
    )
    mine = replace(spec, folder=tmp_path / "mine")
    write_folder(mine, **parts(spec), tokenizer=spec.tokenizer_folder, words={"sofa", "cat"})
    assert (tmp_path / "mine/words.txt").read_text() == "cat\nsofa\n"
    assert read_model_spec(tmp_path / "mine") == replace(
        mine,
        transformer_source=tmp_path / "mine/transformer",
        text_config=mine.text_config | {"dtype": "float32"},
    )
    assert not (tmp_path / "mine/sanakit.json").exists()
    pipeline = getattr(diffusers, "SanaSprintPipeline" if kind == "sprint" else "SanaPipeline")
    first, second = (pipeline.from_pretrained(folder) for folder in (source, tmp_path / "mine"))
    for name in ("transformer", "vae", "text_encoder"):
        assert same(getattr(first, name).state_dict(), getattr(second, name).state_dict())
    assert dict(first.scheduler.config) == dict(second.scheduler.config)
    assert first.tokenizer.get_vocab() == second.tokenizer.get_vocab()
    for file in (
        "transformer/config.json",
        "vae/config.json",
        "scheduler/scheduler_config.json",
        "model_index.json",
    ):
        assert drop_path(read_json(source / file)) == drop_path(read_json(tmp_path / "mine" / file)), file


def drop_path(data: dict[str, Any]) -> str:
    """As JSON; diffusers notes where a model was loaded from, and one word may stand for a list of equal ones."""
    plain = {key: value for key, value in data.items() if key != "_name_or_path"}
    words = {
        key: [value] * 6
        for key, value in plain.items()
        if key.endswith("block_types") and isinstance(value, str)
    }
    return json.dumps(plain | words, sort_keys=True)


def test_what_sanakit_adds_is_ignored_by_diffusers(
    sana_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from diffusers import SanaPipeline

    spec = read_model_spec(sana_folder)
    special = replace(spec, folder=tmp_path, dialect=OFFICIAL, instruct=False, bins=False)
    write_folder(special, **parts(spec), tokenizer=spec.tokenizer_folder)
    assert read_json(tmp_path / "sanakit.json") == {"dialect": "official", "instruct": False, "bins": False}
    again = read_model_spec(tmp_path)
    assert (again.dialect, again.instruct, again.bins) == (OFFICIAL, False, False)
    assert again.transformer.attention_eps == OFFICIAL.attention_eps
    with caplog.at_level(logging.WARNING):
        SanaPipeline.from_pretrained(tmp_path)
    assert "sanakit" not in caplog.text


def test_an_occupied_folder_is_refused_unless_forced(sana_folder: Path, tmp_path: Path) -> None:
    spec = read_model_spec(sana_folder)
    (tmp_path / "precious.txt").write_text("mine")
    (tmp_path / "sanakit.json").write_text('{"bins": false}')
    mine, modules = replace(spec, folder=tmp_path), parts(spec)
    with pytest.raises(OutputError, match="exists already"):
        write_folder(mine, **modules, tokenizer=spec.tokenizer_folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["precious.txt", "sanakit.json"]
    write_folder(mine, **modules, tokenizer=spec.tokenizer_folder, dtype=torch.bfloat16, force=True)
    assert (tmp_path / "precious.txt").read_text() == "mine" and read_model_spec(tmp_path).bins
    assert {entry.dtype for entry in open_weights(tmp_path / "vae").entries.values()} == {"BF16"}
    with pytest.raises(OutputError, match="a folder with tokenizer files"):
        write_folder(mine, **modules, tokenizer=tmp_path / "none", force=True)


def edited(folder: Path, file: str, change: dict[str, Any]) -> None:
    data = read_json(folder / file) | change
    (folder / file).write_text(json.dumps(data))


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("model_index.json", {"_class_name": "FluxPipeline"}, "must be one of SanaPipeline"),
        ("model_index.json", {"_class_name": "SanaSprintPipeline"}, "contradicts itself"),
        ("transformer/config.json", {"in_channels": 4, "out_channels": 4}, "latent channels"),
        ("text_encoder/config.json", {"hidden_size": 17}, "text encoder is 17 wide"),
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "SCMScheduler", "prediction_type": "trigflow"},
            "kind scm",
        ),
        ("sanakit.json", {"instruct": "yes"}, "true or false"),
        ("sanakit.json", {"dialekt": "official"}, "nearest known one is 'dialect'"),
        ("sanakit.json", {"dialect": "klingon"}, "'diffusers', 'official'"),
    ],
)
def test_contradictions_between_files(
    sana_folder: Path, tmp_path: Path, file: str, change: dict[str, Any], words: str
) -> None:
    import shutil

    shutil.copytree(sana_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "sanakit.json").write_text("{}")
    edited(tmp_path, file, change)
    with pytest.raises(ConfigError, match=words):
        read_model_spec(tmp_path)


def test_a_folder_without_parts_names_the_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model_index\.json is missing"):
        read_model_spec(tmp_path)
    with pytest.raises(ConfigError, match=r"isn't a model folder, a \.pth"):
        read_model_spec(tmp_path / "none")


def test_loading_is_strict_and_leaves_the_module_as_it_was(tmp_path: Path) -> None:
    config = TRANSFORMERS[0]
    save_transformer(tmp_path, config, SanaTransformer(config))
    for wrong, words in (
        (
            replace(config, text_width=9),
            r"does not fit .*text\.input\.weight \[8, 8\] float32 instead of \[8, 9\]",
        ),
        (replace(config, depth=2), r"lacks transformer_blocks\.1\..* and 16 more"),
        (replace(config, qk_norm=True), "lacks transformer_blocks.0.attn1.norm_q.weight"),
    ):
        module = on_meta(SanaTransformer, wrong)
        with pytest.raises(WeightsError, match=words):
            load_transformer(module, wrong, tmp_path)
        assert all(value.is_meta for value in module.state_dict().values())


def test_loading_casts_and_keeps_trainability(tmp_path: Path) -> None:
    config = TRANSFORMERS[0]
    save_transformer(tmp_path, config, SanaTransformer(config))
    module = on_meta(SanaTransformer, config)
    module.patch.requires_grad_(False)
    load_transformer(module, config, tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}
    assert not module.patch.weight.requires_grad and module.head.table.requires_grad


def test_schedule_defaults_are_those_of_the_published_models() -> None:
    assert (Schedule().kind, Schedule().shift, Schedule().order, Schedule().final) == ("dpm", 3.0, 2, "zero")
