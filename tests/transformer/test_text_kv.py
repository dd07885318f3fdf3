"""Keys and values of a text, computed once: the same velocity with less work; and batches of unlike samples."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sanakit.base.text_states import TextStates
from sanakit.transformer import SanaTransformer, TransformerConfig

CONFIG = TransformerConfig(latent_channels=4, width=32, depth=3, heads=4, cross_heads=2, text_width=8)
LENGTHS = (3, 5)


@pytest.fixture(params=[False, True], ids=["plain", "qk-norm"])
def model(request: pytest.FixtureRequest) -> SanaTransformer:
    torch.manual_seed(0)
    return SanaTransformer(replace(CONFIG, qk_norm=request.param)).eval()


@pytest.fixture
def text() -> TextStates:
    """Two texts of 3 and 5 tokens, padded to 9; what stands in the padding is large."""
    mask = torch.arange(9) < torch.tensor(LENGTHS)[:, None]
    states = torch.where(mask[..., None], torch.randn(2, 9, 8), torch.full((2, 9, 8), 1e4))
    return TextStates(states, mask)


def draw(model: SanaTransformer, text) -> torch.Tensor:
    torch.manual_seed(1)
    with torch.no_grad():
        return model(torch.randn(2, 4, 3, 5), torch.tensor([10.0, 900.0]), text)


@torch.no_grad()
def test_a_precomputed_text_gives_the_same_velocity(model: SanaTransformer, text: TextStates) -> None:
    assert torch.equal(draw(model, model.precompute_text(text)), draw(model, text))


def test_padding_has_no_weight(model: SanaTransformer, text: TextStates) -> None:
    trimmed = text.trimmed()
    assert trimmed.mask.shape == (2, 5)
    torch.testing.assert_close(
        draw(model, model.precompute_text(trimmed)), draw(model, text), rtol=1e-5, atol=1e-5
    )


def test_no_mask_means_that_every_token_is_real(model: SanaTransformer, text: TextStates) -> None:
    full = text.select(slice(1, 2)).trimmed().repeat(2)
    got = draw(model, replace(model.precompute_text(full), mask=None))
    torch.testing.assert_close(got, draw(model, full), rtol=1e-5, atol=1e-5)


def test_gradients_reach_the_text(model: SanaTransformer, text: TextStates) -> None:
    states = text.states.clone().requires_grad_()
    model(torch.randn(2, 4, 3, 5), torch.ones(2), TextStates(states, text.mask)).square().sum().backward()
    assert (states.grad[text.mask] != 0).any(dim=-1).all()
    assert (states.grad[~text.mask] == 0).all()


@pytest.mark.parametrize("lengths", [(4, 5, 7), (1, 4, 7), (4, 1, 7), (4, 7, 1), (1, 5, 1), (1, 1, 1)])
@torch.no_grad()
def test_attention_to_a_single_token_is_computed_once(
    model: SanaTransformer, lengths: tuple[int, ...]
) -> None:
    """Whatever the place of such a sample in the batch, its keys aren't kept and its queries aren't asked."""
    mask = torch.arange(7) < torch.tensor(lengths)[:, None]
    text = TextStates(torch.randn(3, 7, 8), mask).trimmed()
    text_kv = model.precompute_text(text)
    many = sum(length > 1 for length in lengths)
    assert len(text_kv.blocks[0].key) == len(text_kv.mask) == many
    asked: list[int] = []
    model.blocks[0].cross.q.register_forward_pre_hook(lambda _, args: asked.append(len(args[0])))
    latent, time = torch.randn(3, 4, 3, 5), torch.tensor([700.0])
    got = model(latent, time, text_kv)
    assert asked == ([many] if many else [])
    torch.testing.assert_close(got, model(latent, time, text), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_single_token_need_not_be_the_first(model: SanaTransformer) -> None:
    mask = torch.tensor([[True, True, False], [False, True, False]])
    text = TextStates(torch.randn(2, 3, 8), mask)
    assert text.single.tolist() == [False, True]
    torch.testing.assert_close(
        draw(model, model.precompute_text(text)), draw(model, text), rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_a_batch_of_unlike_samples_equals_each_alone() -> None:
    """Steps, prompts, guidance scales and perturbed blocks may differ: what a server batches."""
    torch.manual_seed(2)
    model = SanaTransformer(replace(CONFIG, qk_norm=True, guidance_embed=True, position_scale=1.0)).eval()
    lengths, count = (5, 1, 3, 9), 4
    text = TextStates(torch.randn(count, 9, 8), torch.arange(9) < torch.tensor(lengths)[:, None])
    latent, time = torch.randn(count, 4, 3, 5), torch.tensor([999.0, 20.0, 500.0, 3.0])
    guidance = torch.tensor([1.0, 4.5, 7.0, 2.0])
    masks = {0: [False, True, True, False], 2: [False, False, True, True]}
    perturbed = {index: torch.tensor(rows) for index, rows in masks.items()}
    whole = model(latent, time, model.precompute_text(text), guidance, perturbed)
    for k in range(count):
        row = slice(k, k + 1)
        its = {index: rows[row] for index, rows in perturbed.items() if rows[k]}
        alone = model(latent[row], time[row], text.select(row).trimmed(), guidance[row], its)
        torch.testing.assert_close(whole[row], alone, rtol=1e-5, atol=1e-5)


def test_one_time_serves_all_samples(model: SanaTransformer, text: TextStates) -> None:
    latent = torch.randn(2, 4, 3, 5)
    with torch.no_grad():
        torch.testing.assert_close(
            model(latent, torch.tensor([400.0]), text),
            model(latent, torch.full((2,), 400.0), text),
            rtol=1e-5,
            atol=1e-5,
        )
