"""Text states: repeating, trimming, padding and joining keep states and mask together."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sanakit.base.errors import SanakitError
from sanakit.base.text_states import TextStates


def states(*lengths: int, total: int | None = None) -> TextStates:
    """One prompt per length, right-padded to `total`; state [b, l] holds 10 * b + l."""
    columns = total or max(lengths)
    values = 10.0 * torch.arange(len(lengths))[:, None] + torch.arange(columns)
    mask = torch.arange(columns)[None] < torch.tensor(lengths)[:, None]
    return TextStates(values[..., None].expand(-1, -1, 3).clone(), mask)


def test_repeat_interleaves_states_and_mask_alike() -> None:
    twice = states(1, 3).repeat(2)
    assert twice.states[:, 0, 0].tolist() == [0.0, 0.0, 10.0, 10.0]
    assert twice.mask.sum(1).tolist() == [1, 1, 3, 3]
    assert twice.batch == 4


def test_trimmed_drops_only_what_no_prompt_uses() -> None:
    trimmed = states(2, 4, total=9).trimmed()
    assert trimmed.states.shape == (2, 4, 3)
    assert trimmed.mask.sum(1).tolist() == [2, 4]


def test_trimmed_keeps_one_column_of_an_empty_mask() -> None:
    text = TextStates(torch.zeros(1, 5, 3), torch.zeros(1, 5, dtype=torch.bool))
    assert text.trimmed().states.shape == (1, 1, 3)
    assert not text.mask.any()


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), spare=st.integers(0, 5))
def test_padding_then_trimming_gives_the_same(lengths: list[int], spare: int) -> None:
    text = states(*lengths)
    again = text.padded(max(lengths) + spare).trimmed()
    assert torch.equal(again.states, text.states)
    assert torch.equal(again.mask, text.mask)


def test_padding_below_the_length_is_refused() -> None:
    with pytest.raises(SanakitError, match="4 tokens can't be padded to 3"):
        states(4).padded(3)


def test_join_pads_to_the_longest_and_select_takes_apart() -> None:
    short, long = states(2), states(1, 5)
    joined = TextStates.join([short, long])
    assert joined.states.shape == (3, 5, 3)
    assert torch.equal(joined.select(slice(0, 1)).trimmed().states, short.states)
    assert torch.equal(joined.select(slice(1, 3)).mask, long.mask)
    with pytest.raises(SanakitError, match="no text states"):
        TextStates.join([])


def test_to_leaves_the_mask_bool() -> None:
    moved = states(2).to("cpu", torch.bfloat16)
    assert (moved.states.dtype, moved.mask.dtype) == (torch.bfloat16, torch.bool)
    assert states(2).to(dtype=torch.float64).states.dtype == torch.float64


@pytest.mark.parametrize(
    ("shape", "mask"),
    [
        ((2, 3), torch.ones(2, 3, dtype=torch.bool)),
        ((2, 3, 4), torch.ones(2, 4, dtype=torch.bool)),
        ((2, 3, 4), torch.ones(2, 3)),
    ],
)
def test_shapes_that_do_not_belong_together_are_refused(shape: tuple[int, ...], mask: torch.Tensor) -> None:
    with pytest.raises(SanakitError):
        TextStates(torch.zeros(shape), mask)
