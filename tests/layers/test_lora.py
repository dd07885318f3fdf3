"""Low-rank adapters: layers of every kind against the changed weight, gradients, magnitudes, and peft as the judge."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import Conv2d as PeftConv
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn

from sanakit.adapt import Int8Linear
from sanakit.kernels.quant_matmul.reference import QuantTokens, quantise_rows
from sanakit.layers.lora import AdaptedConv, AdaptedLinear, Adapter, LowRank, change, merged


def low_rank(
    outputs: int, inputs: int, groups: tuple[int, ...] = (0,), of: int = 1, **more: object
) -> LowRank:
    count = len(groups)
    return LowRank(
        down=torch.randn(count, 3, inputs), up=torch.randn(count, outputs // of, 3), groups=groups, of=of, **more
    )  # fmt: skip


def adapted(base: nn.Module, *lows: LowRank, **more: float) -> AdaptedLinear:
    layer = AdaptedLinear(base)
    for number, low in enumerate(lows):
        layer.adapters[str(number)] = Adapter(low, **more)
    return layer


def close(found: Tensor, wanted: Tensor, bound: float = 1e-5) -> bool:
    return bool((found - wanted).norm() <= bound * wanted.norm())


@pytest.mark.parametrize("groups", [(0, 1, 2), (0,), (2, 1)])
@pytest.mark.parametrize("dora", [False, True])
def test_a_fused_layer_computes_its_changed_weight(groups: tuple[int, ...], dora: bool) -> None:
    base, x = nn.Linear(7, 12), torch.randn(2, 5, 7)
    lengths = torch.rand(len(groups), 4) + 0.5 if dora else None
    lows = [low_rank(12, 7, groups, 3, scale=0.7, magnitude=lengths), low_rank(12, 7, (1,), 3)]
    wanted = nn.functional.linear(x, merged(base.weight, lows), base.bias)
    assert close(adapted(base, *lows)(x), wanted)
    untouched = [group for group in range(3) if group not in groups]
    rows = change(lows[0], base.weight).chunk(3)
    assert all(not rows[group].any() for group in untouched)


def test_a_weight_scales_an_adapter_and_nought_switches_it_off() -> None:
    base, x, low = nn.Linear(7, 12), torch.randn(5, 7), low_rank(12, 7)
    half = nn.functional.linear(x, base.weight + 0.5 * low.up[0] @ low.down[0], base.bias)
    assert close(adapted(base, low, weight=0.5)(x), half)
    assert torch.equal(adapted(base, low, weight=0.0)(x), base(x))


def test_gradients_are_those_of_the_changed_weight() -> None:
    base, x = nn.Linear(7, 12), torch.randn(5, 7)
    low = low_rank(12, 7, (0, 2), 3, scale=0.3, magnitude=torch.rand(2, 4) + 0.5)
    layer = adapted(base, low)
    layer(x).square().sum().backward()
    adapter = layer.each()[0]
    found = [adapter.down.grad, adapter.up.grad, adapter.magnitude.grad]
    for parameter in adapter.parameters():
        parameter.grad = None
    weight = merged(base.weight.detach(), [adapter.value()])
    nn.functional.linear(x, weight, base.bias.detach()).square().sum().backward()
    wanted = [adapter.down.grad, adapter.up.grad, adapter.magnitude.grad]
    assert all(close(one, other) for one, other in zip(found, wanted, strict=True))


def test_dropout_is_for_training_alone() -> None:
    base, x, low = nn.Linear(7, 12), torch.randn(50, 7), low_rank(12, 7)
    layer = adapted(base, low, dropout=0.5)
    assert not torch.equal(layer.train()(x), layer(x))
    assert torch.equal(layer.eval()(x), adapted(base, low)(x))


def test_a_quantised_layer_is_called_as_it_is_even_with_quantised_tokens() -> None:
    base, x, low = Int8Linear.of(nn.Linear(64, 12)), torch.randn(5, 64), low_rank(12, 64, scale=0.1)
    added = x @ (low.scale * low.up[0] @ low.down[0]).T
    assert close(adapted(base, low)(x), base(x) + added)
    tokens = QuantTokens(*quantise_rows(x), x.dtype)
    assert close(adapted(base, low)(tokens), base(x) + added, 0.02)
    lengths = torch.rand(1, 12)
    dora = adapted(base, low_rank(12, 64, magnitude=lengths))
    weight = base.weight * base.scales[:, None]
    assert close(dora(x), nn.functional.linear(x, merged(weight, [dora.each()[0].value()]), base.bias), 0.02)


def test_half_precision_keeps_its_dtype() -> None:
    layer, x = adapted(nn.Linear(7, 12).bfloat16(), low_rank(12, 7)), torch.randn(5, 7).bfloat16()
    assert layer(x).dtype == torch.bfloat16
    assert AdaptedConv(nn.Conv2d(3, 4, 1).bfloat16()).weight.dtype == torch.bfloat16


def peft_linear(base: nn.Linear, low: LowRank, alpha: int, **more: bool) -> PeftLinear:
    config = LoraConfig(r=low.rank, lora_alpha=alpha, **more)
    layer = PeftLinear(base, "default", config, r=low.rank, lora_alpha=alpha)
    return fill(layer, low)


def fill(layer: PeftLinear | PeftConv, low: LowRank) -> PeftLinear | PeftConv:
    """Put our tensors into a layer of peft."""
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    down.data, up.data = low.down[0].reshape(down.shape), low.up[0].reshape(up.shape)
    if low.magnitude is not None:
        held = layer.lora_magnitude_vector["default"].weight
        held.data = low.magnitude[0].reshape(held.shape)
    return layer


def test_peft_agrees_on_rank_stabilised_scales() -> None:
    base, x = nn.Linear(7, 12), torch.randn(2, 5, 7)
    low = low_rank(12, 7, scale=8 / 3**0.5)
    assert close(adapted(base, low)(x), peft_linear(base, low, 8, use_rslora=True)(x))


def test_peft_agrees_on_magnitudes() -> None:
    base, x = nn.Linear(7, 12), torch.randn(2, 5, 7)
    low = low_rank(12, 7, scale=2.0, magnitude=torch.rand(1, 12) + 0.5)
    assert close(adapted(base, low)(x), peft_linear(base, low, 6, use_dora=True)(x))


@pytest.mark.parametrize("dora", [False, True])
def test_peft_agrees_on_convolutions(dora: bool) -> None:
    base, x = nn.Conv2d(5, 8, 3, padding=1), torch.randn(2, 5, 6, 6)
    low = low_rank(8, 45, scale=2.0, magnitude=torch.rand(1, 8) + 0.5 if dora else None)
    theirs = PeftConv(base, "default", LoraConfig(r=3, lora_alpha=6, use_dora=dora), r=3, lora_alpha=6)
    layer = AdaptedConv(base)
    layer.adapters["0"] = Adapter(low)
    assert close(layer(x), fill(theirs, low)(x))


def test_a_depthwise_convolution_changes_within_its_channels() -> None:
    base, x = nn.Conv2d(6, 6, 3, padding=1, groups=6), torch.randn(1, 6, 5, 5)
    layer = AdaptedConv(base)
    layer.adapters["0"] = Adapter(low_rank(6, 9))
    before = layer(x)
    x[:, 0] += 1
    assert torch.equal(layer(x)[:, 1:], before[:, 1:])
    assert not torch.equal(layer(x)[:, 0], before[:, 0])


def test_shapes_that_contradict_each_other() -> None:
    down, up = torch.zeros(1, 3, 7), torch.zeros(1, 12, 4)
    with pytest.raises(ValueError, match="no low-rank change of 1 of 1 matrices"):
        LowRank(down=down, up=up)
    with pytest.raises(ValueError, match="of 1 of 3"):
        LowRank(down=down, up=up[..., :3], groups=(3,), of=3)
