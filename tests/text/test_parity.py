"""States and masks equal those of `diffusers.SanaPipeline.encode_prompt`, for prompts of every length."""

from __future__ import annotations

import pytest
import torch
from diffusers import SanaPipeline
from torch import Tensor

from sanakit.base.dialect import DIFFUSERS
from sanakit.base.text_states import TextStates
from sanakit.text import CHI, Instruction, TextEncoder, null_states
from tests.oracles.bounds import within

BOUND = 1e-5
SHORT = "A Red sphere"
LONG = "three green cones in front of a yellow cylinder on sand at noon, " * 6
OVERLONG = "a small purple glass cube behind Zürich " * 60
PROMPTS = {
    "short": [SHORT],
    "long": [LONG],
    "overlong": [OVERLONG],
    "empty": [""],
    "batch": [SHORT, OVERLONG, "", LONG, "  日本 "],
}


def judge(
    encoder: TextEncoder, prompts: list[str], instruction: Instruction | None, negative: str
) -> list[Tensor]:
    """What diffusers makes of the same tokenizer and weights: states, mask, null states, null mask."""
    pipe = SanaPipeline(
        tokenizer=encoder.tokenizer, text_encoder=encoder.model, vae=None, transformer=None, scheduler=None
    )
    lines = instruction.text.split("\n") if instruction else None
    with torch.no_grad():
        return list(
            pipe.encode_prompt(
                prompts,
                negative_prompt=negative,
                device=torch.device("cpu"),
                max_sequence_length=encoder.max_tokens,
                complex_human_instruction=lines,
            )
        )


def assert_equal(ours: TextStates, states: Tensor, mask: Tensor) -> None:
    """The mask exactly, the states at real tokens within BOUND of their largest."""
    full = ours.padded(mask.shape[1])
    assert torch.equal(full.mask, mask.bool())
    expected = states[mask.bool()]
    within("text states", full.states[full.mask], expected, BOUND)


@pytest.mark.parametrize("instruction", [None, CHI, Instruction("Draw: ")], ids=["plain", "chi", "own"])
@pytest.mark.parametrize("kind", PROMPTS)
def test_states_equal_diffusers(encoder: TextEncoder, kind: str, instruction: Instruction | None) -> None:
    prompts = PROMPTS[kind]
    states, mask, _, _ = judge(encoder, prompts, instruction, "")
    assert_equal(encoder.encode(prompts, instruction, lowercase=True), states, mask)
    with torch.no_grad():
        assert_equal(encoder.encode_batch(prompts, instruction, lowercase=True), states, mask)


@pytest.mark.parametrize("max_tokens", [8, 16])
def test_fewer_kept_tokens(encoder: TextEncoder, max_tokens: int) -> None:
    small = TextEncoder(encoder.model, encoder.tokenizer, max_tokens)
    for prompts in PROMPTS.values():
        states, mask, _, _ = judge(small, prompts, CHI, "")
        assert_equal(small.encode(prompts, CHI, lowercase=True), states, mask)


@pytest.mark.parametrize("instruction", [None, CHI], ids=["plain", "chi"])
def test_padding_states_equal_diffusers(encoder: TextEncoder, instruction: Instruction | None) -> None:
    """With `keep_padding` all 300 states agree, those of padding included."""
    prompts = PROMPTS["batch"]
    states, mask, _, _ = judge(encoder, prompts, instruction, "")
    ours = encoder.encode(prompts, instruction, lowercase=True, keep_padding=True)
    assert ours.states.shape == (5, 300, encoder.width)
    assert torch.equal(ours.mask, mask.bool())
    within("text states", ours.states, states, BOUND)


@pytest.mark.parametrize("negative", ["", "Blurred, dark"])
def test_null_branch_equals_diffusers(encoder: TextEncoder, negative: str) -> None:
    prompts = PROMPTS["batch"]
    _, _, states, mask = judge(encoder, prompts, CHI, negative)
    prompt_mask = encoder.encode(prompts, CHI, lowercase=True).mask
    assert_equal(null_states(encoder, DIFFUSERS, prompt_mask, negative), states, mask)
