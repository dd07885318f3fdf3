"""config.json both ways, and one clear sentence for every field that is unknown, ill-typed or contradictory."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sanakit import autoencoder, transformer
from sanakit.autoencoder import Stage
from sanakit.base.errors import ConfigError
from sanakit.transformer import TransformerConfig
from sanakit.weights.formats import diffusers_autoencoder, diffusers_scheduler, diffusers_transformer
from sanakit.weights.formats.diffusers_scheduler import Schedule
from sanakit.weights.formats.fields import read_json, to_json
from tests.weights.published_configs import SCHEDULER

TINY = TransformerConfig(
    latent_channels=4,
    width=24,
    depth=3,
    heads=3,
    cross_heads=2,
    text_width=12,
    ffn_ratio=3.0,
    patch_size=2,
    sample_size=8,
    position_scale=0.5,
    qk_norm=True,
    guidance_embed=True,
    guidance_scale=0.2,
    time_scale=0.001,
    norm_eps=1e-5,
)


@pytest.mark.parametrize("config", [TINY, *transformer.PRESETS.values()])
def test_transformer_config_round_trip(config: TransformerConfig) -> None:
    assert diffusers_transformer.from_config(diffusers_transformer.to_config(config)) == config


@pytest.mark.parametrize("name", autoencoder.PRESETS)
def test_autoencoder_config_round_trip(name: str) -> None:
    config = autoencoder.PRESETS[name]
    assert diffusers_autoencoder.from_config(diffusers_autoencoder.to_config(config)) == config


def test_our_files_hold_every_field_that_diffusers_writes() -> None:
    from diffusers import AutoencoderDC, SanaTransformer2DModel

    for model, written in (
        (SanaTransformer2DModel, diffusers_transformer.to_config(TINY)),
        (AutoencoderDC, diffusers_autoencoder.to_config(autoencoder.PRESETS["f32c32-lite-1.1"])),
    ):
        theirs = {key: value for key, value in model.from_config(written).config.items() if key[0] != "_"}
        assert read_back(theirs) == read_back({key: value for key, value in written.items() if key[0] != "_"})


def read_back(data: dict[str, Any]) -> Any:
    import json

    return json.loads(to_json(data))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("num_layer", 3, r"unknown field 'num_layer'; the nearest known one is 'num_layers'"),
        (
            "attention_head_dim",
            16,
            r"cross_attention_head_dim is 112, but heads x head dim makes 2240 here and 1120",
        ),
        ("cross_attention_dim", 64, "cross_attention_dim is 64, but must be the width 2240"),
        ("cross_attention_dim", None, "cross_attention_dim is null"),
        ("dropout", 0.1, "dropout is 0.1, but only 0"),
        ("attention_bias", True, "attention_bias is true"),
        ("norm_elementwise_affine", True, "only false"),
        ("out_channels", 64, "must equal in_channels 32"),
        ("qk_norm", "layer_norm", "'rms_norm_across_heads'"),
        ("qk_norm", ["x"], "must be one of null"),
        ("num_layers", "20", "whole number"),
        ("num_layers", True, "whole number"),
        ("num_layers", 10**9, "from 1 to 1000"),
        ("mlp_ratio", math.nan, "number above 0, at most 256"),
        ("mlp_ratio", 1e30, "at most 256"),
        ("num_attention_heads", 2**16, "past 65536"),
        ("mlp_ratio", -1, "above 0"),
        ("guidance_embeds", 1, "true or false"),
        ("interpolation_scale", "big", "interpolation_scale"),
        ("_class_name", "SanaVideoTransformer3DModel", "only 'SanaTransformer2DModel' is read"),
    ],
)
def test_transformer_config_errors(field: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        diffusers_transformer.from_config({field: value}, "a/config.json")
    assert str(caught.value).startswith("a/config.json: ")


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("encoder_layers", [1], "nearest known one is 'encoder_layers_per_block'"),
        ("decoder_norm_types", ["batch_norm"] * 3 + ["rms_norm"] * 3, "may only hold 'rms_norm'"),
        ("decoder_act_fns", "relu", "may only hold 'silu'"),
        ("encoder_block_types", ["ResBlock"] * 5, "list of 6"),
        ("encoder_block_types", "Conv", "'EfficientViTBlock'"),
        ("encoder_layers_per_block", [2, 2], "has 6 stages"),
        ("encoder_layers_per_block", [2, 2, 0, 3, 3, 3], "encoder stage 2 has no layers"),
        ("decoder_block_out_channels", "128", "list of at most 16"),
        ("encoder_qkv_multiscales", [[5]], "each of the 6 stages"),
        ("encoder_qkv_multiscales", [[4]] * 6, "odd kernel sizes"),
        ("in_channels", 4, "3 channels"),
        ("downsample_block_type", "interpolate", "'conv', 'pixel_unshuffle'"),
        ("latent_channels", 31, "latent_channels 31"),
    ],
)
def test_autoencoder_config_errors(field: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        diffusers_autoencoder.from_config({field: value})


def test_what_the_formats_can_not_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match="rotary"):
        diffusers_transformer.to_config(replace(TINY, rotary=True))
    preset = autoencoder.PRESETS["f32c32-sana-1.0"]
    hollow = replace(preset, decoder=(*preset.decoder[:5], Stage("evit", 1024, 0, (5,))))
    with pytest.raises(ConfigError, match="decoder stage 5 has no layers"):
        diffusers_autoencoder.to_config(hollow)


SCHEDULES = [
    Schedule(),
    Schedule(shift=6.0, order=3, solver_type="heun", final="sigma_min"),
    Schedule(kind="euler", shift=3.0),
    Schedule(kind="scm", shift=3.0, sigma_data=0.4),
]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_equal_the_files_of_diffusers(schedule: Schedule) -> None:
    import diffusers

    written = diffusers_scheduler.to_config(schedule)
    assert diffusers_scheduler.from_config(written) == schedule
    theirs = getattr(diffusers, written["_class_name"]).from_config(written)
    assert theirs.to_json_string().encode() == to_json(written)


def test_the_published_scheduler_file() -> None:
    assert diffusers_scheduler.from_config(SCHEDULER) == Schedule()


def test_euler_takes_the_shift_of_a_solver_it_was_made_from() -> None:
    name = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
    assert diffusers_scheduler.from_config({**name, "flow_shift": 6.0}).shift == 6.0
    assert diffusers_scheduler.from_config({**name, "flow_shift": 6.0, "shift": 2.0}).shift == 2.0
    assert diffusers_scheduler.from_config(name).shift == 1.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"_class_name": "UniPCMultistepScheduler"}, "must be one of DPMSolver"),
        ({"_class_name": None}, "must be one of"),
        ({"prediction_type": "epsilon"}, "flow_prediction"),
        ({"use_flow_sigmas": False}, "flow sigmas"),
        ({"use_karras_sigmas": True}, "only false"),
        ({"algorithm_type": "sde-dpmsolver++"}, "dpmsolver"),
        ({"flow_shif": 3.0}, "nearest known one is 'flow_shift'"),
        ({"solver_order": 4}, "from 1 to 3"),
        ({"num_train_timesteps": 10}, "1000"),
        ({"final_sigmas_type": "sigma_min", "beta_end": 0.5}, "beta_end"),
    ],
)
def test_scheduler_errors(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        diffusers_scheduler.from_config({**diffusers_scheduler.to_config(Schedule()), **change})


def test_json_files(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(ConfigError, match="is missing"):
        read_json(path)
    for text, words in ((b"{", "not valid JSON"), (b"[1]", "JSON object"), (b"\xff\xfe", "not valid JSON")):
        path.write_bytes(text)
        with pytest.raises(ConfigError, match=words):
            read_json(path)
    path.write_bytes(b"[" * 10**5)
    with pytest.raises(ConfigError, match="not valid JSON"):
        read_json(path)
    with pytest.raises(ConfigError, match="can't be read"):
        read_json(tmp_path)
    path.write_bytes(to_json({"b": -math.inf, "a": (1,)}))
    assert path.read_bytes() == b'{\n  "a": [\n    1\n  ],\n  "b": -Infinity\n}\n'
    assert read_json(path) == {"a": [1], "b": -math.inf}
