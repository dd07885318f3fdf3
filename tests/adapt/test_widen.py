"""Products of half precision in float32: every one of a network, rounded again, and nothing else touched."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sanakit.adapt.runner import widen
from sanakit.base.text_states import TextStates
from sanakit.transformer import SanaTransformer, TransformerConfig, initialise

HALVES = (torch.bfloat16, torch.float16)


class Products(nn.Module):
    """One of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.conv = nn.Linear(6, 4), nn.Conv2d(4, 4, 3, padding=1, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, h, w, 6] -> [B, h, w]."""
        y = self.conv(self.linear(x).permute(0, 3, 1, 2))
        return torch.bmm(y.mean(1), y.amax(1).mT) @ torch.matmul(y.amin(1), y.amax(1).mT)


class Watch(TorchFunctionMode):
    """Notes the dtypes that products are given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.dtype] = []

    def __torch_function__(self, call, types, arguments=(), named=None):
        if call in (F.linear, F.conv2d, torch.bmm, torch.matmul, Tensor.matmul, Tensor.__matmul__):
            self.seen += [each.dtype for each in arguments if isinstance(each, Tensor)]
        return call(*arguments, **(named or {}))


@pytest.mark.parametrize("dtype", HALVES)
def test_every_product_is_given_float32_and_rounded(dtype: torch.dtype) -> None:
    module = Products().to(dtype).requires_grad_(False)
    x = torch.randn(2, 5, 5, 6).to(dtype)
    wanted = Products.forward(module.float(), x.float())
    runner = widen(module.to(dtype))
    with Watch() as watch:
        got = runner(x)
    assert got.dtype == dtype
    assert set(watch.seen) == {torch.float32}
    assert torch.linalg.norm(got.float() - wanted) < 2e-2 * torch.linalg.norm(wanted)
    assert {weight.dtype for weight in module.parameters()} == {dtype}


def test_float32_stays_as_it_is() -> None:
    module, x = Products().requires_grad_(False), torch.randn(2, 5, 5, 6)
    wanted = module(x)
    assert torch.equal(widen(module)(x), wanted)


def test_a_transformer_draws_in_it() -> None:
    config = TransformerConfig(latent_channels=4, width=16, depth=2, heads=2, cross_heads=2, text_width=8)
    model = initialise(SanaTransformer(config)).eval().requires_grad_(False)
    nn.init.normal_(model.head.out.weight)
    x, time = torch.randn(1, 4, 6, 4), torch.tensor([500.0])
    text = TextStates(torch.randn(1, 5, 8), torch.ones(1, 5, dtype=torch.bool))
    wanted = model(x, time, model.precompute_text(text))
    runner = widen(model.bfloat16())
    half = TextStates(text.states.bfloat16(), text.mask)
    with Watch() as watch:
        got = runner(x.bfloat16(), time, runner.precompute_text(half))
    assert set(watch.seen) == {torch.float32}
    assert torch.linalg.norm(got.float() - wanted) < 3e-2 * torch.linalg.norm(wanted)
