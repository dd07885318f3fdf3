"""Configuration files of the published checkpoints, as they lie on the hub, independent of our presets."""

from __future__ import annotations

import math
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

# What is left out is the class's default; files of older releases lack the fields of newer ones.
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
    "_class_name": "AutoencoderDC",
    "_diffusers_version": "0.32.0.dev0",
    "_name_or_path": "mit-han-lab/dc-ae-f32c32-sana-1.0-diffusers",
    "attention_head_dim": 32,
    "decoder_act_fns": "silu",
    "decoder_norm_types": "rms_norm",
    "encoder_qkv_multiscales": [[], [], [], [5], [5], [5]],
    "encoder_block_types": _KINDS,
    "decoder_block_types": _KINDS,
    "encoder_layers_per_block": [2, 2, 2, 3, 3, 3],
    "decoder_layers_per_block": [3, 3, 3, 3, 3, 3],
    "downsample_block_type": "Conv",
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

SCHEDULER: dict[str, Any] = {
    "_class_name": "DPMSolverMultistepScheduler",
    "_diffusers_version": "0.32.0.dev0",
    "algorithm_type": "dpmsolver++",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "dynamic_thresholding_ratio": 0.995,
    "euler_at_final": False,
    "final_sigmas_type": "zero",
    "flow_shift": 3.0,
    "lambda_min_clipped": -math.inf,
    "lower_order_final": True,
    "num_train_timesteps": 1000,
    "prediction_type": "flow_prediction",
    "rescale_betas_zero_snr": False,
    "sample_max_value": 1.0,
    "solver_order": 2,
    "solver_type": "midpoint",
    "steps_offset": 0,
    "thresholding": False,
    "timestep_spacing": "linspace",
    "trained_betas": None,
    "use_beta_sigmas": False,
    "use_exponential_sigmas": False,
    "use_flow_sigmas": True,
    "use_karras_sigmas": False,
    "use_lu_lambdas": False,
    "variance_type": None,
}
