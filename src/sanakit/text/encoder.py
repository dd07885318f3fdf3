"""Prompts to token states: Gemma-2 runs over the real tokens only, and its states are cached.

Legend: B prompts, L kept tokens (at most `max_tokens`), C the width of the states.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sanakit.base.dialect import Dialect
from sanakit.base.errors import ConfigError, RequestError
from sanakit.base.text_states import TextStates
from sanakit.text import prompt as rule
from sanakit.text.cache import CacheInfo, LruCache, content_key
from sanakit.text.gemma import restore_constants
from sanakit.text.prompt import Instruction
from sanakit.text.tokenizer import limit_of, row_of

if TYPE_CHECKING:
    from transformers import Gemma2Model, PreTrainedTokenizerBase


class TextEncoder:
    """A tokenizer and a Gemma-2 decoder: prompts in, TextStates out.

    model: from `build_gemma`, weights loaded. tokenizer: must put <bos> in front. max_tokens: the number of
    states kept per prompt. model_id: a name that goes into the cache key. cache_size: how many prompts' states
    stay in memory (at most 1.4 MB each for the published model in bfloat16). runner: called instead of
    `model`, which it holds.
    Raises ConfigError when tokenizer and model do not belong together.
    """

    def __init__(
        self,
        model: Gemma2Model,
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int = rule.MAX_TOKENS,
        *,
        model_id: str = "",
        cache_size: int = 64,
        runner: nn.Module | None = None,
    ) -> None:
        if max_tokens < 2:
            raise ConfigError(f"a text encoder must keep at least 2 tokens, not {max_tokens}")
        _check_pair(model, tokenizer)
        restore_constants(model)
        self.model = model
        self._run = model if runner is None else runner
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.model_id = model_id
        self._cache = LruCache[TextStates](cache_size)

    @property
    def width(self) -> int:
        """The width C of the states."""
        return int(self.model.config.hidden_size)

    @property
    def device(self) -> torch.device:
        """The device of the model and of the states."""
        return self.model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the model and of the states."""
        return self.model.embed_tokens.weight.dtype

    def encode(
        self,
        prompts: Sequence[str],
        instruction: Instruction | None = None,
        *,
        lowercase: bool,
        keep_padding: bool = False,
    ) -> TextStates:
        """Return the kept states of each prompt, without gradient: [B, L, C], and the mask of real tokens.

        Every prompt runs alone and unpadded, so its states depend neither on its neighbours nor on what the cache
        holds. The result is as long as its longest prompt. With `keep_padding` all `max_tokens` positions are
        there, with the states that Gemma computes at padding (the official null branch reads them).
        Raises RequestError for an empty list.
        """
        texts = _final(prompts, instruction, lowercase)
        limit = self._limit(instruction)
        return TextStates.join([self._cached(text, limit, keep_padding) for text in texts])

    def encode_batch(
        self, prompts: Sequence[str], instruction: Instruction | None = None, *, lowercase: bool
    ) -> TextStates:
        """As `encode`, but in one pass padded to the longest prompt, with gradient, and not remembered.

        For training and for long lists; equal to `encode` up to rounding. Raises RequestError for an empty list.
        """
        limit = self._limit(instruction)
        rows = [self._tokens(text, limit) for text in _final(prompts, instruction, lowercase)]
        return self._forward(rows, limit, max(len(row) for row in rows))

    def count_cut(
        self, prompt: str, instruction: Instruction | None = None, *, lowercase: bool = False
    ) -> int:
        """Return how many tokens at the end of `prompt` don't fit and are cut; 0 if all of it is used."""
        tokens = self._count(rule.final_prompt(prompt, instruction, lowercase))
        return rule.tokens_cut(tokens, self._limit(instruction))

    def letters(
        self, prompt: str, instruction: Instruction | None = None, *, lowercase: bool
    ) -> list[tuple[int, int]]:
        """Return the letters of the cleaned prompt that each kept state [L] stands for, as the first and the end.

        (0, 0) for <bos> and the instruction's. Raises ConfigError for a tokenizer that doesn't tell.
        """
        if not self.tokenizer.is_fast:
            raise ConfigError(
                "regions need a tokenizer that tells which letters a token has (tokenizer.json)"
            )
        text, limit = rule.final_prompt(prompt, instruction, lowercase), self._limit(instruction)
        before = len(text) - len(rule.clean_prompt(prompt, lowercase))
        found = self.tokenizer(text, truncation=True, max_length=limit, return_offsets_mapping=True)
        spans = found["offset_mapping"]
        kept = [place for place in rule.kept_positions(limit, self.max_tokens) if place < len(spans)]
        return [(max(spans[place][0] - before, 0), max(spans[place][1] - before, 0)) for place in kept]

    def cache_clear(self) -> None:
        """Drop all states and set the counters of the cache to zero."""
        self._cache.clear()

    def cache_info(self) -> CacheInfo:
        """Hits, misses and size of the cache."""
        return self._cache.info

    def _cached(self, text: str, limit: int, keep_padding: bool) -> TextStates:
        """Return the states of one final prompt [1, L, C], from the cache or computed."""
        weights = _weights_stamp(self.model)
        settings = (limit, self.max_tokens, keep_padding, str(self.device), str(self.dtype))
        key = content_key(self.model_id, weights, text, *settings)
        found = self._cache.get(key)
        if found is not None:
            return found
        ids = self._tokens(text, limit)
        with torch.no_grad():
            states = self._forward([ids], limit, limit if keep_padding else len(ids))
        self._cache.put(key, states)
        return states

    def _forward(self, rows: list[list[int]], limit: int, length: int) -> TextStates:
        """Gemma over token rows padded right to `length`; the kept positions of the result, [B, L, C]."""
        ids = torch.full((len(rows), length), int(self.tokenizer.pad_token_id or 0))
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
        real = torch.tensor([len(row) for row in rows])
        mask = (torch.arange(length) < real[:, None]).to(self.device)
        output = self._run(input_ids=ids.to(self.device), attention_mask=mask.long(), use_cache=False)
        states: Tensor = output.last_hidden_state
        kept = [position for position in rule.kept_positions(limit, self.max_tokens) if position < length]
        return TextStates(states[:, kept], mask[:, kept])

    def _tokens(self, text: str, limit: int) -> list[int]:
        return row_of(self.tokenizer, text, limit)

    def _count(self, text: str) -> int:
        return len(self.tokenizer(text, verbose=False)["input_ids"])

    def _limit(self, instruction: Instruction | None) -> int:
        return limit_of(self.tokenizer, instruction, self.max_tokens)


def _final(prompts: Sequence[str], instruction: Instruction | None, lowercase: bool) -> list[str]:
    """Return the texts to tokenise; a single string is one prompt, not a sequence of letters."""
    listed = [prompts] if isinstance(prompts, str) else list(prompts)
    if not listed:
        raise RequestError("there is no prompt to encode; give at least one")
    return [rule.final_prompt(prompt, instruction, lowercase) for prompt in listed]


def _weights_stamp(model: Gemma2Model) -> str:
    """Return a stamp that changes with every in-place update or replacement of a weight."""
    stamps = ((w.data_ptr(), 0 if w.is_inference() else w._version) for w in model.parameters())
    return str(hash(tuple(stamps)))


def _check_pair(model: Gemma2Model, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ConfigError for a tokenizer without <bos>, or with ids that the model has no embedding for."""
    if not tokenizer("")["input_ids"]:
        raise ConfigError("the tokenizer must put a <bos> token in front of every prompt, but it does not")
    largest, rows = max(tokenizer.get_vocab().values()), int(model.config.vocab_size)
    if largest >= rows:
        raise ConfigError(
            f"the tokenizer has ids up to {largest}, but the text encoder has {rows} embeddings"
        )


def null_states(
    encoder: TextEncoder, dialect: Dialect, prompt_mask: Tensor, negative: str = ""
) -> TextStates:
    """Return states and mask that stand for "no prompt" (or for a negative prompt) beside B prompts.

    prompt_mask: [B, L] bool, the mask of the prompts' states. The negative prompt never has an instruction.
    dialect.null_mask "own" (diffusers): the real tokens of the negative prompt, [B, Ln, C]. "prompt" (official,
    as in training, where dropping a caption kept its mask): the states of the negative prompt padded to
    `max_tokens`, seen through the prompts' mask, [B, L, C]; so padding is attended at the positions of prompt tokens.
    """
    batch, length = prompt_mask.shape
    if dialect.null_mask == "own":
        return encoder.encode([negative], lowercase=dialect.lowercase).repeat(batch)
    padded = encoder.encode([negative], lowercase=dialect.lowercase, keep_padding=True)
    states = padded.states[:, :length].expand(batch, -1, -1)
    return TextStates(states, prompt_mask.to(states.device))
