"""The Gemma-2 configurations: the published 2B text encoder, and small ones of the same architecture.

A configuration is the plain dict that stands in `text_encoder/config.json`, so that it can be written to a
folder as it is and be read by transformers.
"""

from __future__ import annotations

from typing import Any, Final

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
    """The configuration of a small Gemma-2: everything but the sizes is as in `GEMMA_2_2B`.

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
