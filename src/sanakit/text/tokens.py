"""Prompts as padded rows of token ids, and the states that a text encoder gives for them, with gradient.

Legend: B prompts, N tokens that the language model reads, L kept tokens, C the width of the states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sanakit.base.text_states import TextStates
from sanakit.text import prompt as rule
from sanakit.text.prompt import MAX_TOKENS, Instruction

if TYPE_CHECKING:
    from transformers import Gemma2Model, PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False, kw_only=True)
class Tokens:
    """What a text encoder reads, without the encoder: small enough to travel with a batch.

    ids: [B, N] int64, padded right. real: [B, N] bool, False at padding. kept: [B, L] int64, the positions among N
    whose states condition the transformer. mask: [B, L] bool, False where a row keeps fewer than L.
    """

    ids: Tensor
    real: Tensor
    kept: Tensor
    mask: Tensor

    def to(self, device: torch.device | str) -> Tokens:
        """The same on a device."""
        return Tokens(
            ids=self.ids.to(device), real=self.real.to(device), kept=self.kept.to(device), mask=self.mask.to(device)
        )  # fmt: skip


def tokenise(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    instruction: Instruction | None = None,
    *,
    lowercase: bool,
    max_tokens: int = MAX_TOKENS,
) -> Tokens:
    """The tokens of each prompt behind the instruction; the empty prompt is read without it, as drawing reads it."""
    chosen = [(prompt, instruction if prompt else None) for prompt in prompts]
    limits = {how: limit_of(tokenizer, how, max_tokens) for _, how in chosen}
    rows = [
        row_of(tokenizer, rule.final_prompt(prompt, how, lowercase), limits[how]) for prompt, how in chosen
    ]
    kept = [
        [place for place in rule.kept_positions(limits[how], max_tokens) if place < len(row)]
        for (_, how), row in zip(chosen, rows, strict=True)
    ]
    ids, real = _padded(rows, int(tokenizer.pad_token_id or 0))
    places, mask = _padded(kept, 0)
    return Tokens(ids=ids, real=real, kept=places, mask=mask)


def read_tokens(model: Gemma2Model, tokens: Tokens) -> TextStates:
    """The kept states, with gradient: [B, L, C]. The tokens must be where the model is."""
    output = model(input_ids=tokens.ids, attention_mask=tokens.real.long(), use_cache=False)
    states: Tensor = output.last_hidden_state
    places = tokens.kept[..., None].expand(-1, -1, states.shape[-1])
    return TextStates(states.gather(1, places), tokens.mask)


def row_of(tokenizer: PreTrainedTokenizerBase, text: str, limit: int) -> list[int]:
    """The ids of a final prompt, cut to `limit`."""
    return list(tokenizer(text, truncation=True, max_length=limit)["input_ids"])


def limit_of(tokenizer: PreTrainedTokenizerBase, instruction: Instruction | None, max_tokens: int) -> int:
    """The number of tokens that the language model reads at most, instruction included."""
    counted = 0 if instruction is None else len(tokenizer(instruction.text, verbose=False)["input_ids"])
    return rule.length_limit(counted, max_tokens)


def _padded(rows: Sequence[Sequence[int]], fill: int) -> tuple[Tensor, Tensor]:
    """Rows as [B, longest] int64, and where they are real."""
    length = max(len(row) for row in rows)
    values = torch.full((len(rows), length), fill)
    for index, row in enumerate(rows):
        values[index, : len(row)] = torch.tensor(row)
    return values, torch.arange(length) < torch.tensor([len(row) for row in rows])[:, None]
