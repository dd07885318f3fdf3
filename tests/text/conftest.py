"""A tiny text encoder: a tokenizer learnt from a few captions and a random Gemma-2 of width 16."""

from __future__ import annotations

import pytest
import torch
from transformers import Gemma2Model, PreTrainedTokenizerBase

from sanakit.text import CHI, TextConfig, TextEncoder, build_gemma, small_gemma, train_tokenizer

CAPTIONS = [
    "a large red metal sphere left of a small blue rubber cube on grass at sunset",
    "three green cones in front of a yellow cylinder on sand at noon",
    "a small purple glass cube behind a large orange sphere on wood at night",
]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer([*CAPTIONS * 4, CHI.text], 400)


@pytest.fixture(scope="session")
def config(tokenizer: PreTrainedTokenizerBase) -> TextConfig:
    vocab = len(tokenizer)
    return small_gemma(vocab=vocab, width=16, layers=2, heads=4, kv_heads=2, head_dim=8, ffn=32)


@pytest.fixture(scope="session")
def gemma(config: TextConfig) -> Gemma2Model:
    """Random weights large enough that attention and soft-cap matter."""
    torch.manual_seed(0)
    model = build_gemma(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(std=0.1 if "norm" in name else 0.4)
    return model


@pytest.fixture
def encoder(gemma: Gemma2Model, tokenizer: PreTrainedTokenizerBase) -> TextEncoder:
    return TextEncoder(gemma, tokenizer, model_id="tiny")
