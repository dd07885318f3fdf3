"""The losses of the Toybox recipe: what the last state of a caption must tell."""

from __future__ import annotations

import math

import pytest
import torch

from recipes.toybox_model import retelling


def test_a_state_that_points_at_its_words_tells_them() -> None:
    table = 50 * torch.eye(6)
    ids = torch.tensor([[2, 4, 5, 0], [2, 3, 0, 0]])
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])
    states = torch.randn(2, 4, 6)
    states[0, 2] = (table[4] + table[5]) / 50
    states[1, 1] = table[3] / 50
    # Two words share the first sentence's probability, the second has one word for itself.
    wanted = (2 * math.log(2) + 0) / 3
    assert float(retelling(states, ids, mask, table)) == pytest.approx(wanted, abs=1e-5)


def test_padding_and_states_before_the_last_do_not_count() -> None:
    torch.manual_seed(0)
    table, ids = torch.randn(9, 5), torch.randint(9, (2, 4))
    mask = torch.tensor([[True, True, True, False], [True, True, False, False]])
    states = torch.randn(2, 4, 5)
    before = retelling(states, ids, mask, table)
    changed, others = states.clone(), ids.clone()
    changed[0, [0, 1, 3]], changed[1, [0, 2, 3]] = 7.0, 7.0
    others[0, 3], others[1, 2:] = 8, 8
    assert torch.equal(retelling(changed, others, mask, table), before)


def test_captions_without_words_ask_for_nothing() -> None:
    mask = torch.tensor([[True, False]])
    states = torch.randn(1, 2, 3, requires_grad=True)
    loss = retelling(states, torch.zeros(1, 2, dtype=torch.long), mask, torch.randn(4, 3))
    loss.backward()
    assert loss.item() == 0
    assert not states.grad.any()
