"""The text encoder: trimming, memory, batches, gradients, refusals."""

from __future__ import annotations

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from sanakit.base import ConfigError, RequestError
from sanakit.text import CHI, Instruction, TextConfig, TextEncoder, build_gemma

PROMPTS = ["a red sphere", "Three GREEN cones on sand at noon", ""]


def test_trimmed_equals_padded(encoder: TextEncoder) -> None:
    short = encoder.encode(PROMPTS, CHI, lowercase=True)
    full = encoder.encode(PROMPTS, CHI, lowercase=True, keep_padding=True)
    assert short.states.shape[1] < 40 and full.states.shape[1] == 300
    assert torch.equal(short.padded(300).mask, full.mask)
    torch.testing.assert_close(short.states[short.mask], full.states[full.mask], rtol=1e-5, atol=1e-5)


def test_a_prompt_does_not_depend_on_its_neighbours(encoder: TextEncoder) -> None:
    together = encoder.encode(PROMPTS, lowercase=True)
    encoder.cache_clear()
    for index, prompt in enumerate(PROMPTS):
        alone = encoder.encode([prompt], lowercase=True)
        row = together.select(slice(index, index + 1)).trimmed()
        assert torch.equal(row.states, alone.states)


def test_a_single_string_is_one_prompt(encoder: TextEncoder) -> None:
    assert encoder.encode("a red cube", lowercase=True).batch == 1


def test_no_prompt_is_refused(encoder: TextEncoder) -> None:
    with pytest.raises(RequestError, match="at least one"):
        encoder.encode([], lowercase=True)
    with pytest.raises(RequestError, match="at least one"):
        encoder.encode_batch([], lowercase=True)


def test_the_dialect_decides_about_capitals(encoder: TextEncoder) -> None:
    """The tiny tokenizer lowers by itself, so the texts are compared through the cache: same text, one entry."""
    encoder.encode(["A Cat ", "a cat"], lowercase=True)
    assert encoder.cache_info().size == 1
    encoder.encode(["A Cat ", "a cat"], lowercase=False)
    assert encoder.cache_info().size == 2


@pytest.mark.parametrize("instruction", [None, CHI])
def test_letters_of_states_are_those_of_the_prompt(
    encoder: TextEncoder, instruction: Instruction | None
) -> None:
    prompt = "a red sphere on sand"
    letters = encoder.letters(f" {prompt} ", instruction, lowercase=True)
    assert len(letters) == encoder.encode([prompt], instruction, lowercase=True).states.shape[1]
    assert letters[0] == (0, 0)
    assert "".join(prompt[first:end] for first, end in letters).replace(" ", "") == prompt.replace(" ", "")
    assert letters[-1][1] == len(prompt)


def test_cache_counts_and_clears(encoder: TextEncoder) -> None:
    first = encoder.encode(PROMPTS, lowercase=True)
    again = encoder.encode(PROMPTS, lowercase=True)
    assert torch.equal(first.states, again.states)
    info = encoder.cache_info()
    assert (info.hits, info.misses, info.size) == (3, 3, 3)
    encoder.encode(PROMPTS, CHI, lowercase=True)
    encoder.encode(PROMPTS, lowercase=True, keep_padding=True)
    assert encoder.cache_info().misses == 9
    encoder.cache_clear()
    info = encoder.cache_info()
    assert (info.hits, info.misses, info.size) == (0, 0, 0)


def test_cache_hits_run_no_model(encoder: TextEncoder) -> None:
    runs: list[int] = []
    handle = encoder.model.register_forward_pre_hook(lambda *_: runs.append(1))
    encoder.encode(["a red cube", "a red cube", "a cone"], lowercase=True)
    encoder.encode(["a cone"], lowercase=True)
    handle.remove()
    assert len(runs) == 2


def test_cache_forgets_the_longest_unused(encoder: TextEncoder) -> None:
    small = TextEncoder(encoder.model, encoder.tokenizer, cache_size=2)
    small.encode(["one", "two"], lowercase=True)
    small.encode(["one", "three"], lowercase=True)
    small.encode(["one", "three"], lowercase=True)
    assert (small.cache_info().hits, small.cache_info().size) == (3, 2)


def test_changed_weights_are_not_mistaken(config: TextConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    encoder = TextEncoder(build_gemma(config), tokenizer)
    before = encoder.encode(["a cone"], lowercase=True)
    with torch.no_grad():
        encoder.model.layers[0].mlp.up_proj.weight.mul_(30)
    assert not torch.equal(before.states, encoder.encode(["a cone"], lowercase=True).states)
    state = {name: torch.randn_like(weight) for name, weight in encoder.model.state_dict().items()}
    encoder.model.load_state_dict(state, assign=True)
    encoder.encode(["a cone"], lowercase=True)
    assert encoder.cache_info().hits == 0


def test_gradient_reaches_the_weights_only_through_a_batch(
    config: TextConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    encoder = TextEncoder(build_gemma(config), tokenizer)
    assert not encoder.encode(PROMPTS, lowercase=True).states.requires_grad
    batch = encoder.encode_batch(PROMPTS, lowercase=True)
    batch.states[batch.mask].square().sum().backward()
    assert all(weight.grad is not None for weight in encoder.model.parameters())
    assert encoder.cache_info().misses == 3


def test_cut_is_counted(encoder: TextEncoder) -> None:
    word = " sphere"
    for instruction in (None, CHI):
        assert encoder.count_cut(word * 100, instruction) == 0
        longest = next(n for n in range(290, 310) if encoder.count_cut(word * n, instruction)) - 1
        assert [encoder.count_cut(word * (longest + n), instruction) for n in (0, 1, 57)] == [0, 1, 57]
        kept = encoder.encode([word * (longest + 57)], instruction, lowercase=True)
        assert kept.mask.shape == (1, 300) and bool(kept.mask.all())


def test_low_precision_keeps_exact_positions(config: TextConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    model = build_gemma(config)
    exact = model.rotary_emb.inv_freq.clone()
    encoder = TextEncoder(model.to(torch.bfloat16), tokenizer)
    assert torch.equal(encoder.model.rotary_emb.inv_freq, exact)
    states = encoder.encode(["a red cube"], lowercase=True).states
    assert states.dtype == torch.bfloat16 and bool(states.isfinite().all())


def test_tokenizer_and_model_must_fit(config: TextConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ConfigError, match="300 embeddings"):
        TextEncoder(build_gemma({**config, "vocab_size": 300}), tokenizer)
    with pytest.raises(ConfigError, match="at least 2"):
        TextEncoder(build_gemma(config), tokenizer, max_tokens=1)
