"""Building Gemma-2: on the meta device, from published and small configurations, and refusing broken ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from sanakit.base import ConfigError
from sanakit.text import GEMMA_2_2B, TextConfig, TextEncoder, build_gemma, small_gemma


def test_meta_build_filled_equals_direct_build(
    config: TextConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    direct = build_gemma(config)
    empty = build_gemma(config, device="meta")
    assert all(weight.is_meta for weight in empty.parameters())
    empty.load_state_dict(direct.state_dict(), strict=True, assign=True)
    assert not any(tensor.is_meta for tensor in [*empty.parameters(), *empty.buffers()])
    one = TextEncoder(direct, tokenizer).encode(["a red cube"], lowercase=True)
    two = TextEncoder(empty, tokenizer).encode(["a red cube"], lowercase=True)
    assert torch.equal(one.states, two.states)


def test_the_default_device_is_obeyed(config: TextConfig) -> None:
    with torch.device("meta"):
        assert all(weight.is_meta for weight in build_gemma(config).parameters())


def test_published_configuration() -> None:
    model = build_gemma(GEMMA_2_2B, device="meta")
    shapes = {name: tuple(weight.shape) for name, weight in model.state_dict().items()}
    assert len(shapes) == 26 * 11 + 2
    assert sum(weight.numel() for weight in model.parameters()) == 2_614_341_888
    assert shapes["embed_tokens.weight"] == (256000, 2304)
    assert shapes["layers.25.self_attn.k_proj.weight"] == (1024, 2304)
    assert shapes["layers.0.mlp.gate_proj.weight"] == (9216, 2304)
    assert shapes["norm.weight"] == (2304,)


def test_soft_cap_is_applied_and_nothing_is_trained_mode() -> None:
    model = build_gemma({**GEMMA_2_2B, "num_hidden_layers": 1, "attn_implementation": "sdpa"}, device="meta")
    assert model.config._attn_implementation == "eager"
    assert model.config.attn_logit_softcapping == 50.0
    assert not model.training and not model.config.use_cache


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "llama"},
        {"vocab_size": -1},
        {"hidden_size": "16"},
        {"num_hidden_layers": 0},
        {"num_attention_heads": 3},
        {"num_key_value_heads": 3},
        {"head_dim": 7},
        {"sliding_window": None},
        {"rms_norm_eps": float("nan")},
        {"num_hidden_layers": 10**30},
        {"hidden_activation": "nonsense"},
        {"layer_types": ["a"]},
        {"pad_token_id": 1000},
        {"rope_parameters": "nonsense"},
    ],
    ids=lambda change: "-".join(change),
)
def test_broken_configurations_are_refused(change: dict[str, Any]) -> None:
    config = small_gemma(vocab=300, width=16, layers=2, heads=4, kv_heads=2, head_dim=8, ffn=32)
    with pytest.raises(ConfigError, match=r"^the text encoder") as caught:
        build_gemma({**config, **change}, device="meta")
    assert "\n" not in str(caught.value)


def test_bookkeeping_of_a_file_changes_nothing(config: TextConfig) -> None:
    extra = {"dtype": "float16", "output_hidden_states": "x", "quantization_config": {}, "_name_or_path": "x"}
    assert build_gemma({**config, **extra}).dtype == torch.float32


def test_missing_fields_are_refused() -> None:
    with pytest.raises(ConfigError, match="model_type"):
        build_gemma({}, device="meta")
    with pytest.raises(ConfigError, match="hidden_size"):
        build_gemma({"model_type": "gemma2", "vocab_size": 10}, device="meta")
