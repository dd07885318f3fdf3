"""Edits of a network keep its gradients and names; what a step takes is counted without doing it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sanakit.training.cost import kept_bytes, product_rate, train_operations, transformer_pass
from sanakit.training.edits import attend_by_products, named_weights, recompute
from sanakit.transformer import PRESETS, SanaTransformer


@pytest.mark.parametrize(("every", "count"), [(0, 0), (1, 4), (2, 2), (3, 2)])
def test_recomputed_blocks_give_the_same_gradients(every: int, count: int) -> None:
    def blocks() -> nn.ModuleList:
        torch.manual_seed(0)
        return nn.ModuleList(nn.Sequential(nn.Linear(3, 3), nn.SiLU()) for _ in range(4))

    def gradients(chain: nn.ModuleList) -> list[torch.Tensor]:
        x = torch.ones(2, 3, requires_grad=True)
        y = x
        for block in chain:
            y = block(y)
        y.sum().backward()
        return [p.grad for block in chain for p in block.parameters() if p.grad is not None]

    edited = blocks()
    attend_by_products(edited)
    assert recompute(edited, every) == count
    assert [name for name, _ in named_weights(edited)] == [name for name, _ in blocks().named_parameters()]
    for a, b in zip(gradients(blocks()), gradients(edited), strict=True):
        assert torch.equal(a, b)


def test_a_steps_arithmetic_and_memory_are_counted_without_doing_it() -> None:
    shape = PRESETS["toybox"]
    with torch.device("meta"):
        weights = sum(p.numel() for p in SanaTransformer(shape).parameters())
    tokens = 8 * 8
    operations = train_operations(lambda: transformer_pass(shape, 8, 4))
    assert 0.5 < operations / (6 * weights * tokens) < 1.2  # six per weight and token is the rule of thumb
    small, large = (kept_bytes(lambda s=side: transformer_pass(shape, s, 4)) for side in (8, 16))
    assert 3 < large / small < 4.2  # grows with the tokens
    assert product_rate(torch.device("cpu"), torch.float32, rounds=1) > 1e8
