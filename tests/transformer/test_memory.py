"""What the transformer keeps of a text: the same velocity with less work."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sanakit.base import TextStates
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
def test_a_text_that_was_read_gives_the_same_velocity(model: SanaTransformer, text: TextStates) -> None:
    assert torch.equal(draw(model, model.read(text)), draw(model, text))


def test_padding_has_no_weight(model: SanaTransformer, text: TextStates) -> None:
    trimmed = text.trimmed()
    assert trimmed.mask.shape == (2, 5)
    torch.testing.assert_close(draw(model, model.read(trimmed)), draw(model, text), rtol=1e-5, atol=1e-5)


def test_no_mask_means_that_every_token_is_real(model: SanaTransformer, text: TextStates) -> None:
    full = text.select(slice(1, 2)).trimmed().repeat(2)
    memory = model.read(full)
    got = draw(model, replace(memory, mask=None))
    torch.testing.assert_close(got, draw(model, full), rtol=1e-5, atol=1e-5)


def test_gradients_reach_the_text_through_its_memory(model: SanaTransformer, text: TextStates) -> None:
    states = text.states.clone().requires_grad_()
    model(torch.randn(2, 4, 3, 5), torch.ones(2), TextStates(states, text.mask)).square().sum().backward()
    assert (states.grad[text.mask] != 0).any(dim=-1).all()
    assert (states.grad[~text.mask] == 0).all()


@pytest.mark.parametrize("lone", [0, 1, 2, 3])
def test_samples_of_one_token_are_settled_once(model: SanaTransformer, lone: int) -> None:
    """The answer to a text of one token is the same for every question, so it is kept instead of its keys."""
    lengths = torch.tensor([1 if index < lone else 4 + index for index in range(3)])
    text = TextStates(torch.randn(3, 7, 8), torch.arange(7) < lengths[:, None]).trimmed()
    assert text.lone() == lone
    memory = model.read(text, lone)
    assert len(memory.blocks[0].key) == 3 - lone
    latent, time = torch.randn(3, 4, 3, 5), torch.tensor([700.0])
    with torch.no_grad():
        torch.testing.assert_close(
            model(latent, time, memory), model(latent, time, text), rtol=1e-4, atol=1e-5
        )


def test_one_token_that_is_not_the_first_is_not_alone() -> None:
    mask = torch.tensor([[True, False, False], [False, True, False], [True, False, False]])
    assert TextStates(torch.zeros(3, 3, 2), mask).lone() == 1


def test_one_time_serves_all_samples(model: SanaTransformer, text: TextStates) -> None:
    latent = torch.randn(2, 4, 3, 5)
    with torch.no_grad():
        torch.testing.assert_close(
            model(latent, torch.tensor([400.0]), text),
            model(latent, torch.full((2,), 400.0), text),
            rtol=1e-5,
            atol=1e-5,
        )
