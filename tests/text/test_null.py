"""The null branch: states and mask in both dialects."""

from __future__ import annotations

import torch

from sanakit.base.dialect import DIFFUSERS, OFFICIAL
from sanakit.text import CHI, TextEncoder, null_states

PROMPTS = ["a red sphere", "three green cones in front of a yellow cylinder on sand at noon"]


def test_own_mask_sees_the_first_token_only(encoder: TextEncoder) -> None:
    prompt = encoder.encode(PROMPTS, CHI, lowercase=True)
    null = null_states(encoder, DIFFUSERS, prompt.mask)
    assert null.states.shape == (2, 1, encoder.width) and bool(null.mask.all())
    # <bos> sees nothing but itself: its state is the same behind any prompt
    torch.testing.assert_close(null.states[:, 0], prompt.states[:, 0], rtol=1e-5, atol=1e-5)


def test_prompt_mask_sees_padding(encoder: TextEncoder) -> None:
    prompt = encoder.encode(PROMPTS, CHI, lowercase=False)
    null = null_states(encoder, OFFICIAL, prompt.mask)
    assert torch.equal(null.mask, prompt.mask)
    assert null.states.shape == prompt.states.shape
    tokens = torch.tensor([[2] + [0] * 299])
    mask = torch.tensor([[1] + [0] * 299])
    with torch.no_grad():
        padded = encoder.model(input_ids=tokens, attention_mask=mask).last_hidden_state
    expected = padded[:, : prompt.mask.shape[1]].expand(2, -1, -1)
    torch.testing.assert_close(null.states, expected, rtol=1e-5, atol=1e-5)


def test_a_negative_prompt_takes_the_prompts_mask_too(encoder: TextEncoder) -> None:
    prompt = encoder.encode(PROMPTS, lowercase=False)
    null = null_states(encoder, OFFICIAL, prompt.mask, "blue")
    words = encoder.encode(["blue"], lowercase=False)
    real = words.states.shape[1]
    assert torch.equal(null.mask, prompt.mask)
    torch.testing.assert_close(null.states[:1, :real], words.states, rtol=1e-5, atol=1e-5)


def test_one_null_pass_serves_all_prompts(encoder: TextEncoder) -> None:
    for prompt in PROMPTS:
        null_states(encoder, OFFICIAL, encoder.encode([prompt], lowercase=False).mask)
    assert encoder.cache_info().hits == 1
