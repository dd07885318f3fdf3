"""Text conditioning: instruction and kept-token rule, the Gemma-2 encoder, tokenizers, the null branch."""

from __future__ import annotations

from sanakit.text.cache import CacheInfo, LruCache, content_key
from sanakit.text.config import BOOKKEEPING, FIELDS, GEMMA_2_2B, TextConfig, check_text_config, small_gemma
from sanakit.text.encoder import TextEncoder, null_states
from sanakit.text.gemma import build_gemma, restore_constants
from sanakit.text.prompt import (
    CHI,
    MAX_TOKENS,
    Instruction,
    clean_prompt,
    final_prompt,
    kept_positions,
    length_limit,
    tokens_cut,
)
from sanakit.text.tokenizer import (
    SPECIAL_TOKENS,
    Tokens,
    extend_tokenizer,
    load_tokenizer,
    read_tokens,
    save_tokenizer,
    tokenise,
    train_tokenizer,
)
from sanakit.text.vocabulary import (
    add_words,
    is_closed,
    new_words,
    tokens_per_word,
    widen,
    widened,
    words_in_pieces,
    words_of,
)

__all__ = [
    "BOOKKEEPING",
    "CHI",
    "FIELDS",
    "GEMMA_2_2B",
    "MAX_TOKENS",
    "SPECIAL_TOKENS",
    "CacheInfo",
    "Instruction",
    "LruCache",
    "TextConfig",
    "TextEncoder",
    "Tokens",
    "add_words",
    "build_gemma",
    "check_text_config",
    "clean_prompt",
    "content_key",
    "extend_tokenizer",
    "final_prompt",
    "is_closed",
    "kept_positions",
    "length_limit",
    "load_tokenizer",
    "new_words",
    "null_states",
    "read_tokens",
    "restore_constants",
    "save_tokenizer",
    "small_gemma",
    "tokenise",
    "tokens_cut",
    "tokens_per_word",
    "train_tokenizer",
    "widen",
    "widened",
    "words_in_pieces",
    "words_of",
]
