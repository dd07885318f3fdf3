"""The form in which a LoRA's frozen base model is held: its dtype, or int8."""

from __future__ import annotations

import torch

from sanakit.adapt.quantise import quantise
from sanakit.base.errors import ConfigError
from sanakit.base.precision import Precision
from sanakit.base.units import dtype_name
from sanakit.training.config import TrainConfig
from sanakit.training.lora_settings import LoraConfig
from sanakit.transformer import SanaTransformer
from sanakit.weights import ModelSpec, int8_layers

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def frozen_dtype(settings: LoraConfig, precision: Precision) -> torch.dtype:
    """Return the dtype of the frozen weights; with int8, of those that stay as they are.

    Raises ConfigError for one in which this run can't multiply.
    """
    wanted = _DTYPES.get(settings.frozen, precision.dtype)
    if wanted == torch.bfloat16 and precision.dtype != torch.bfloat16:
        raise ConfigError(
            f"lora.frozen=bf16 needs products in bf16, and this run computes in {dtype_name(precision.dtype)} "
            f"({precision.reason}): set dtype=bf16, or lora.frozen=int8 to save memory"
        )
    return wanted


def in_int8(config: TrainConfig, spec: ModelSpec, bare: SanaTransformer) -> bool:
    """Return whether the frozen weights are in int8. bare: the network on the meta device.

    Raises ConfigError if they can't be, or can't be differentiated.
    """
    wanted, stored = config.lora.frozen, bool(int8_layers(spec.transformer_source))
    if stored and wanted in _DTYPES:
        raise ConfigError(
            f"lora.frozen={wanted}: {config.base_model} is in int8, which has lost its {wanted} weights; take "
            "lora.frozen=int8, or the model that it was made of"
        )
    if wanted != "int8" and not stored:
        return False
    if config.compile:
        raise ConfigError(
            "compile: int8 layers have no backward pass in their compiled form; set compile=false, or take another "
            "lora.frozen"
        )
    if not stored and not quantise(bare, build=lambda linear: linear).replaced:
        raise ConfigError(
            f"lora.frozen=int8: {config.base_model} has no layer that is wide enough for int8 to save anything; "
            "leave it out"
        )
    return True
