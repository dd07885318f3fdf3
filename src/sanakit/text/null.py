"""The unconditional branch of guidance, in its two dialects."""

from __future__ import annotations

from torch import Tensor

from sanakit.base.dialect import Dialect
from sanakit.base.text_states import TextStates
from sanakit.text.encoder import TextEncoder


def null_states(
    encoder: TextEncoder, dialect: Dialect, prompt_mask: Tensor, negative: str = ""
) -> TextStates:
    """States and mask that stand for "no prompt" (or for a negative prompt) beside B prompts.

    prompt_mask: [B, L] bool, the mask of the prompts' states. The negative prompt never has an instruction.
    dialect.null_mask "own" (diffusers): the real tokens of the negative prompt, [B, Ln, C]. "prompt" (official,
    as in training, where dropping a caption kept its mask): the states of the negative prompt padded to
    `max_tokens`, seen through the prompts' mask, [B, L, C]; so padding is attended where the prompt has tokens.
    """
    batch, length = prompt_mask.shape
    if dialect.null_mask == "own":
        return encoder.encode([negative], lowercase=dialect.lowercase).repeat(batch)
    padded = encoder.encode([negative], lowercase=dialect.lowercase, keep_padding=True)
    states = padded.states[:, :length].expand(batch, -1, -1)
    return TextStates(states, prompt_mask.to(states.device))
