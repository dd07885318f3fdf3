"""Builds the Gemma-2 decoder (no language-model head) that turns tokens into states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from sanakit.base.errors import ConfigError
from sanakit.text.config import TextConfig

if TYPE_CHECKING:
    from transformers import Gemma2Model

# What the architecture is made of, with the most that is believed; beyond it a file is damaged.
_SIZES = {
    "vocab_size": 2**24,
    "hidden_size": 2**16,
    "intermediate_size": 2**20,
    "num_hidden_layers": 2**10,
    "num_attention_heads": 2**10,
    "num_key_value_heads": 2**10,
    "head_dim": 2**14,
}
_NUMBERS = (
    "rms_norm_eps",
    "query_pre_attn_scalar",
    "sliding_window",
    "initializer_range",
    "attn_logit_softcapping",
)
# Only these reach transformers. The rest of a file is its bookkeeping (versions, generation, dtype, attention), which
# must not decide how prompts are encoded: only eager attention applies Gemma-2's soft-cap on the logits.
_FIELDS = (
    *_SIZES,
    *_NUMBERS,
    "hidden_activation",
    "max_position_embeddings",
    "pad_token_id",
    "eos_token_id",
    "bos_token_id",
    "tie_word_embeddings",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "attention_bias",
    "attention_dropout",
    "layer_types",
    "final_logit_softcapping",
    "use_bidirectional_attention",
)


def build_gemma(config: TextConfig, device: torch.device | str | None = None) -> Gemma2Model:
    """A Gemma2Model in evaluation mode, float32, with eager attention and random weights.

    config: the content of `text_encoder/config.json`. device: where the parameters live; "meta" gives them
    shapes only, to be filled by `load_state_dict(..., assign=True)`. The constants (rotary frequencies, embedding
    scale) are no part of any checkpoint and are real in every case.
    Raises ConfigError for another architecture, or sizes that are missing, of a wrong type or contradictory.
    """
    _check(config)
    from transformers import Gemma2Config, Gemma2Model

    fields = {name: config[name] for name in _FIELDS if name in config}
    fields.update(use_cache=False, attn_implementation="eager")
    try:
        with torch.device(device if device is not None else torch.get_default_device()):
            model = Gemma2Model(Gemma2Config(**fields))
    except (
        Exception
    ) as error:  # the library raises what comes first: KeyError, RuntimeError, AssertionError ...
        reason = " ".join(str(error).split())
        raise ConfigError(f"The text encoder's configuration can't be built: {reason}.") from error
    restore_constants(model)
    model.train(False)
    return model


def restore_constants(model: Gemma2Model) -> None:
    """Gives rotary frequencies and embedding scale their float32 values back, in place.

    They are buffers outside the state dict: building on the meta device leaves them without values, and
    `model.to(torch.bfloat16)` rounds them, which turns every position.
    """
    table: Any = model.rotary_emb
    embedding: Any = model.embed_tokens
    target = embedding.weight.device
    where = torch.device("cpu") if target.type == "meta" else target
    if table.inv_freq.is_meta or table.inv_freq.dtype != torch.float32:
        with torch.device("cpu"):
            fresh = type(table)(model.config)
        model.rotary_emb = fresh.to(where)
    if embedding.embed_scale.is_meta or embedding.embed_scale.dtype != torch.float32:
        scale = torch.tensor(float(embedding.scalar_embed_scale), dtype=torch.float32, device=where)
        embedding.embed_scale = scale


def _check(config: TextConfig) -> None:
    """Refuses what transformers would accept, or would refuse only when the first prompt runs."""
    kind = config.get("model_type")
    if kind != "gemma2":
        raise ConfigError(f"The text encoder must have model_type 'gemma2', not {kind!r}.")
    for name, most in _SIZES.items():
        value = config.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
            raise ConfigError(
                f"The text encoder's {name} must be a whole number from 1 to {most}, not {value!r}."
            )
    for name in _NUMBERS:
        value = config.get(name, 1)
        if not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise ConfigError(f"The text encoder's {name} must be a number above 0, not {value!r}.")
    heads, kv_heads, head_dim = (
        config[name] for name in ("num_attention_heads", "num_key_value_heads", "head_dim")
    )
    if heads % kv_heads:
        raise ConfigError(
            f"The text encoder's {heads} attention heads must be a multiple of its {kv_heads} key-value heads."
        )
    if head_dim % 2:
        raise ConfigError(
            f"The text encoder's head_dim must be even for its rotary positions, not {head_dim}."
        )
