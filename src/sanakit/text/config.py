"""The configuration of a Gemma-2 text encoder: published values, small ones, and what a `config.json` may hold.

A configuration is the plain dict of `text_encoder/config.json`, so that transformers can read it as it is written.
Fields that decide what is computed have bounds; the rest of a file is bookkeeping.
"""

from __future__ import annotations

import math
from typing import Any, Final

from sanakit.base.echo import printable, quoted
from sanakit.base.errors import ConfigError

TextConfig = dict[str, Any]

PAD, EOS, BOS, UNK = 0, 1, 2, 3

# Field order and values of google/gemma-2-2b-it, the decoder under every published SANA checkpoint.
GEMMA_2_2B: Final[TextConfig] = {
    "architectures": ["Gemma2Model"],
    "model_type": "gemma2",
    "vocab_size": 256000,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 8192,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "pad_token_id": PAD,
    "eos_token_id": EOS,
    "bos_token_id": BOS,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "final_logit_softcapping": 30.0,
    "attn_logit_softcapping": 50.0,
}


def small_gemma(
    *, vocab: int, width: int, layers: int, heads: int, kv_heads: int, head_dim: int, ffn: int
) -> TextConfig:
    """Return the configuration of a small Gemma-2: everything but the sizes is as in `GEMMA_2_2B`.

    Attention logits are scaled by head_dim**-0.5. Sizes are checked when the model is built (`build_gemma`).
    """
    sizes = {
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": ffn,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "query_pre_attn_scalar": head_dim,
        "max_position_embeddings": 2048,
    }
    return {**GEMMA_2_2B, **sizes}


__all__ = ["BOOKKEEPING", "FIELDS", "check_text_config"]

# What the architecture is made of, with the most that is believed; beyond it a file is damaged.
_SIZES = {
    "vocab_size": 2**24,
    "hidden_size": 2**16,
    "intermediate_size": 2**20,
    "num_hidden_layers": 200,  # the largest Gemma-2 has 46
    "num_attention_heads": 2**10,
    "num_key_value_heads": 2**10,
    "head_dim": 2**14,
}
_COUNTS = {"sliding_window": 2**31, "max_position_embeddings": 2**31}
_NUMBERS = {
    "rms_norm_eps": 1.0,
    "query_pre_attn_scalar": 1e6,
    "initializer_range": 1e3,
    "attn_logit_softcapping": 1e6,
    "rope_theta": 1e12,
}
_FLAGS = ("tie_word_embeddings", "attention_bias")
_TOKENS = ("pad_token_id", "eos_token_id", "bos_token_id")
_ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")
_ATTENTIONS = ("full_attention", "sliding_attention")

FIELDS = (
    *_SIZES,
    *_COUNTS,
    *_NUMBERS,
    *_FLAGS,
    *_TOKENS,
    "hidden_activation",
    "rope_scaling",
    "rope_parameters",
    "attention_dropout",
    "layer_types",
    "final_logit_softcapping",
    "use_bidirectional_attention",
)
"""Only these reach transformers. The rest of a file is its bookkeeping (versions, generation, dtype, attention), which
must not decide how prompts are encoded: only eager attention applies Gemma-2's soft-cap on the logits."""

_BOOKKEEPING = """
    add_cross_attention architectures attn_implementation auto_map bad_words_ids begin_suppress_tokens
    cache_implementation chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id
    diversity_penalty do_sample dtype early_stopping encoder_no_repeat_ngram_size
    exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id hidden_act id2label
    is_decoder is_encoder_decoder label2id length_penalty max_length max_new_tokens min_length min_new_tokens
    model_type no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_attentions
    output_hidden_states output_scores prefix problem_type pruned_heads remove_invalid_values repetition_penalty
    return_dict return_dict_in_generate sep_token_id suppress_tokens task_specific_params temperature
    tf_legacy_loss tie_encoder_decoder tokenizer_class top_k top_p torch_dtype torchscript transformers_version
    typical_p unsloth_fixed unsloth_version use_bfloat16 use_cache
"""
BOOKKEEPING = frozenset(_BOOKKEEPING.split())
"""Fields of the library and of text generation that any release may write; none changes the states of a prompt."""


def check_text_config(config: TextConfig) -> None:
    """Raise ConfigError for another architecture, and for the first field that is missing, ill-typed or out of bounds.

    transformers would accept some of that, or refuse it only when the first prompt runs.
    """
    kind = config.get("model_type")
    if kind != "gemma2":
        raise ConfigError(f"the text encoder must have model_type 'gemma2', not {quoted(kind)}")
    for name, most in _SIZES.items():
        _whole(config, name, 1, most)
    for name, most in _COUNTS.items():
        if name in config:
            _whole(config, name, 1, most)
    for name, high in _NUMBERS.items():
        if not _is_number(config.get(name, 1)) or not 0 < config.get(name, 1) <= high:
            raise _unfit(config, name, f"a number above 0, at most {high:g}")
    _check_optional(config)
    _check_heads(config)


def _whole(config: TextConfig, name: str, low: int, most: int) -> None:
    value = config.get(name)
    if type(value) is not int or not low <= value <= most:
        raise _unfit(config, name, f"a whole number from {low} to {most}")


def _is_number(value: object) -> bool:
    """Finite and not a bool; a whole number too large for a float isn't one either."""
    return (type(value) is int and abs(value) < 2**64) or (isinstance(value, float) and math.isfinite(value))


def _unfit(config: TextConfig, name: str, wanted: str) -> ConfigError:
    return ConfigError(
        f"the text encoder's {printable(name, 80)} must be {wanted}, not {quoted(config.get(name))}"
    )


def _check_optional(config: TextConfig) -> None:
    """Fields that files of some releases lack; absent means the library's default."""
    for name in _FLAGS:
        if type(config.get(name, False)) is not bool:
            raise _unfit(config, name, "true or false")
    for name in _TOKENS:
        ids = config.get(name)
        if ids is not None:
            listed = ids if isinstance(ids, list) and name == "eos_token_id" and ids else [ids]
            for token in listed:
                _whole({name: token}, name, 0, config["vocab_size"] - 1)
    wanted: dict[str, tuple[bool, str]] = {
        "hidden_activation": (_one_of(config, "hidden_activation", _ACTIVATIONS), f"one of {', '.join(_ACTIVATIONS)}"),
        "attention_dropout": (_is_dropout(config.get("attention_dropout", 0.0)), "a share from 0 to 1"),
        "final_logit_softcapping": (_is_cap(config.get("final_logit_softcapping")), "null or a number above 0"),
        "rope_scaling": (config.get("rope_scaling") is None, "null"),
        "rope_parameters": (_is_rope(config.get("rope_parameters")), "null, or hold rope_type default and rope_theta"),
        "use_bidirectional_attention": (config.get("use_bidirectional_attention") in (None, False), "null or false"),
        "layer_types": (_are_layers(config), f"null or one of {', '.join(_ATTENTIONS)} for each layer"),
    }  # fmt: skip
    for name, (fits, words) in wanted.items():
        if not fits:
            raise _unfit(config, name, words)


def _one_of(config: TextConfig, name: str, words: tuple[str, ...]) -> bool:
    return name not in config or (isinstance(config[name], str) and config[name] in words)


def _is_dropout(value: Any) -> bool:
    return _is_number(value) and 0 <= value < 1


def _is_cap(value: Any) -> bool:
    return value is None or (_is_number(value) and value > 0)


def _is_rope(value: Any) -> bool:
    """Plain rotary positions, as Gemma-2 has them."""
    if value is None:
        return True
    if not isinstance(value, dict) or set(value) - {"rope_type", "rope_theta"}:
        return False
    theta = value.get("rope_theta", 1.0)
    return value.get("rope_type", "default") == "default" and _is_number(theta) and 0 < theta <= 1e12


def _are_layers(config: TextConfig) -> bool:
    kinds = config.get("layer_types")
    if kinds is None:
        return True
    count = config["num_hidden_layers"]
    return isinstance(kinds, list) and len(kinds) == count and all(kind in _ATTENTIONS for kind in kinds)


def _check_heads(config: TextConfig) -> None:
    heads, kv_heads, head_dim = (
        config[name] for name in ("num_attention_heads", "num_key_value_heads", "head_dim")
    )
    if heads % kv_heads:
        raise ConfigError(
            f"the text encoder's {heads} attention heads must be a multiple of its {kv_heads} key-value heads"
        )
    if head_dim % 2:
        raise ConfigError(
            f"the text encoder's head_dim must be even for its rotary positions, not {head_dim}"
        )
