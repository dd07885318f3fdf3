"""config.json of the published checkpoints as diffusers has them, written down independently of our presets."""

from __future__ import annotations

from typing import Any

_SMALL: dict[str, Any] = {
    "num_attention_heads": 36,
    "num_layers": 28,
    "num_cross_attention_heads": 16,
    "cross_attention_head_dim": 72,
    "cross_attention_dim": 1152,
}
_QK: dict[str, Any] = {"qk_norm": "rms_norm_across_heads"}
_SPRINT: dict[str, Any] = {**_QK, "guidance_embeds": True}

# What is left out is the class's default, as in files that older releases wrote.
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "sana-0.6b-512": {**_SMALL, "sample_size": 16},
    "sana-0.6b-1024": _SMALL,
    "sana-1.6b-512": {"sample_size": 16},
    "sana-1.6b-1024": {},
    "sana-1.6b-2k": {"sample_size": 64, "interpolation_scale": 1.0},
    "sana-1.6b-4k": {"sample_size": 128, "interpolation_scale": 2.0},
    "sana1.5-1.6b-1024": _QK,
    "sana1.5-4.8b-1024": {**_QK, "num_layers": 60},
    "sprint-0.6b-1024": {**_SMALL, **_SPRINT},
    "sprint-1.6b-1024": _SPRINT,
}
PARAMETERS: dict[str, int] = {
    "sana-0.6b-512": 591_747_872,
    "sana-0.6b-1024": 591_747_872,
    "sana-1.6b-512": 1_604_462_752,
    "sana-1.6b-1024": 1_604_462_752,
    "sana-1.6b-2k": 1_604_462_752,
    "sana-1.6b-4k": 1_604_462_752,
    "sana1.5-1.6b-1024": 1_604_641_952,
    "sana1.5-4.8b-1024": 4_721_825_952,
    "sprint-0.6b-1024": 593_501_216,
    "sprint-1.6b-1024": 1_610_237_472,
    "f32c32-sana-1.0": 312_250_275,
    "f32c32-sana-1.1": 312_250_275,
    "f32c32-lite-1.1": 421_181_228,
}

_KINDS = ["ResBlock"] * 3 + ["EfficientViTBlock"] * 3
_DCAE: dict[str, Any] = {
    "encoder_block_types": _KINDS,
    "decoder_block_types": _KINDS,
    "encoder_layers_per_block": [2, 2, 2, 3, 3, 3],
    "decoder_layers_per_block": [3, 3, 3, 3, 3, 3],
    "downsample_block_type": "conv",
    "upsample_block_type": "interpolate",
    "scaling_factor": 0.41407,
}
AUTOENCODERS: dict[str, dict[str, Any]] = {
    "f32c32-sana-1.0": _DCAE,
    "f32c32-sana-1.1": _DCAE,
    "f32c32-lite-1.1": {
        **_DCAE,
        "decoder_block_types": "ResBlock",
        "decoder_layers_per_block": [0, 3, 5, 4, 4, 4],
        "upsample_block_type": "pixel_shuffle",
        "decoder_conv_act_fn": "silu",
    },
}
