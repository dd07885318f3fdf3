"""LoRA on a whole transformer: targets by name, putting on, taking off, merging, and engines around it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sanakit.adapt import pack, quantise
from sanakit.adapt.lora import (
    adaptable,
    adapter_names,
    adapters_disabled,
    add_adapter,
    find_layers,
    layer_size,
    low_ranks,
    matrices,
    merge_adapters,
    remove_adapter,
    set_weights,
)
from sanakit.adapt.quantise import fuse_quantisation
from sanakit.base.errors import RequestError
from sanakit.base.text_states import TextStates
from sanakit.layers.lora import LowRank
from sanakit.transformer import SanaTransformer, TransformerConfig, initialise

CONFIG = TransformerConfig(
    latent_channels=4, width=64, depth=2, heads=4, cross_heads=4, text_width=24, qk_norm=True, guidance_embed=True
)  # fmt: skip


@pytest.fixture
def model() -> SanaTransformer:
    model = initialise(SanaTransformer(CONFIG)).eval().requires_grad_(False)
    nn.init.normal_(model.head.out.weight)
    for block in model.blocks:
        nn.init.normal_(block.cross.out.weight, std=0.1)
    return model


def adapter(
    model: SanaTransformer, patterns: tuple[str, ...] = ("*",), dora: bool = False
) -> dict[str, LowRank]:
    lows, layers = {}, adaptable(model)
    for name in find_layers(model, patterns):
        (outputs, inputs), of = layer_size(layers[name]), matrices(name)
        lows[name] = LowRank(
            down=torch.randn(of, 2, inputs) / inputs**0.5,
            up=torch.randn(of, outputs // of, 2) * 0.1,
            magnitude=torch.rand(of, outputs // of) + 0.5 if dora else None,
            groups=tuple(range(of)),
            of=of,
        )
    return lows


def velocity(model: SanaTransformer) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    text = TextStates(torch.randn(2, 6, 24, generator=generator), torch.ones(2, 6, dtype=torch.bool))
    latent = torch.randn(2, 4, 4, 4, generator=generator)
    with torch.no_grad():
        return model(latent, torch.tensor([100.0, 800.0]), text, torch.tensor([4.5, 1.0]))


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


def test_readable_names(model: SanaTransformer) -> None:
    assert find_layers(model, ["blocks.1.cross"]) == tuple(
        f"blocks.1.cross.{part}" for part in ("q", "kv", "out")
    )
    assert find_layers(model, ["ffn.depthwise"]) == ("blocks.0.ffn.depthwise", "blocks.1.ffn.depthwise")
    both = find_layers(model, ["attention", "cross"])
    assert len(both) == 10
    assert set(both) == set(
        find_layers(model, ["blocks.*.attention.*", "*.cross.q", "*.cross.kv", "*.cross.out"])
    )
    assert find_layers(model, ["text"]) == ("text.input", "text.output")
    assert len(find_layers(model, ["*"])) == len(adaptable(model))
    with pytest.raises(
        RequestError, match=r"no layer of the transformer is called 'atention'; use attention"
    ):
        find_layers(model, ["cross", "atention"])


@pytest.mark.parametrize("dora", [False, True])
def test_beside_and_merged_draw_the_same_and_off_is_as_before(model: SanaTransformer, dora: bool) -> None:
    before = velocity(model)
    add_adapter(model, "one", adapter(model, dora=dora), weight=0.5)
    add_adapter(model, "two", adapter(model, ("ffn", "attention.qkv")))
    beside = velocity(model)
    assert error(beside, before) > 0.01
    assert adapter_names(model) == ("one", "two")
    kept = {name: low_ranks(model, name) for name in ("one", "two")}
    remove_adapter(model, "one")
    remove_adapter(model, "two")
    assert torch.equal(velocity(model), before)
    add_adapter(model, "one", kept["one"], weight=0.5)
    add_adapter(model, "two", kept["two"])
    merge_adapters(model)
    assert error(velocity(model), beside) < 1e-5
    assert not adapter_names(model)
    assert set(adaptable(model)) == {
        name for name, part in model.named_modules() if hasattr(part, "weight")
    } - {name for name, _ in model.named_modules() if "norm" in name}


def test_weights_can_change_between_calls(model: SanaTransformer) -> None:
    before, lows = velocity(model), adapter(model, ("cross",))
    add_adapter(model, "one", lows, weight=0.3)
    small = velocity(model)
    set_weights(model, {"one": 0.0})
    assert torch.equal(velocity(model), before)
    set_weights(model, {"one": 0.3})
    assert torch.equal(velocity(model), small)
    with pytest.raises(ValueError, match="no adapter 'two'; there are one"):
        set_weights(model, {"two": 1.0})
    with pytest.raises(ValueError, match="already"):
        add_adapter(model, "one", lows)


@pytest.mark.parametrize("dora", [False, True])
def test_adapters_beside_packed_and_quantised_layers(model: SanaTransformer, dora: bool) -> None:
    lows = adapter(model, dora=dora)
    add_adapter(model, "one", lows)
    wanted = velocity(model)
    pack(model)
    assert error(velocity(model), wanted) < 1e-5


def test_adapters_beside_int8(model: SanaTransformer) -> None:
    lows = adapter(model)
    add_adapter(model, "one", lows)
    wanted = velocity(model)
    report = quantise(model, smallest=1)
    assert "blocks.0.attention.qkv.base" in report.replaced
    assert {"blocks.0.cross.q.base", "head.out.base", "modulation.base"} <= set(report.kept)
    fuse_quantisation(model)
    assert 1e-4 < error(velocity(model), wanted) < 0.05
    with pytest.raises(RequestError, match="held as Int8Linear, and nothing can be merged"):
        merge_adapters(model)


def test_only_adapters_get_gradients(model: SanaTransformer) -> None:
    add_adapter(model, "one", adapter(model, ("attention", "ffn.depthwise")))
    text = TextStates(torch.randn(1, 6, 24), torch.ones(1, 6, dtype=torch.bool))
    model(torch.randn(1, 4, 4, 4), torch.tensor([500.0]), text, torch.tensor([4.5])).sum().backward()
    with_gradient = {name for name, part in model.named_parameters() if part.grad is not None}
    assert with_gradient == {name for name, _ in model.named_parameters() if ".adapters.one." in name}
    assert len(with_gradient) == 2 * 3 * 2


def test_adapters_of_other_models_are_refused(model: SanaTransformer) -> None:
    low = LowRank(down=torch.zeros(1, 2, 32), up=torch.zeros(1, 64, 2))
    with pytest.raises(
        RequestError, match=r"for another transformer: its blocks.0.cross.q has 32 inputs and 64"
    ):
        add_adapter(model, "one", {"blocks.0.cross.q": low})
    with pytest.raises(RequestError, match=r"changes blocks.7.cross.q, which isn.t a layer"):
        add_adapter(model, "one", {"blocks.7.cross.q": low})
    assert not adapter_names(model)


def test_disabled_adapters_change_nothing_and_come_back() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.Conv2d(3, 3, 3, padding=1, groups=3))
    x, image = torch.randn(2, 6), torch.randn(1, 3, 5, 5)
    plain = model[0](x), model[1](image)
    add_adapter(model, "one", {
        "0": LowRank(down=torch.randn(1, 2, 6), up=torch.randn(1, 4, 2), magnitude=torch.ones(1, 4)),
        "1": LowRank(down=torch.randn(1, 2, 9), up=torch.randn(1, 3, 2)),
    })  # fmt: skip
    changed = model[0](x), model[1](image)
    with pytest.raises(KeyError), adapters_disabled(model):
        assert torch.equal(model[0](x), plain[0]) and torch.equal(model[1](image), plain[1])
        raise KeyError
    assert torch.equal(model[0](x), changed[0]) and torch.equal(model[1](image), changed[1])
    assert not torch.allclose(changed[0], plain[0]) and not torch.allclose(changed[1], plain[1])
