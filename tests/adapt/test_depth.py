"""Blocks added and taken out: what stays is computed as before, and fresh blocks begin as published."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sanakit.adapt.depth import GROWTHS, BlockOrigin, plan_growth, plan_pruning, reshape_depth
from sanakit.base.errors import RequestError
from sanakit.base.text_states import TextStates
from sanakit.transformer import SanaTransformer, TransformerConfig, initialise

CONFIG = TransformerConfig(width=64, depth=4, heads=2, cross_heads=2, text_width=16, sample_size=4)


@pytest.fixture(scope="module")
def old() -> SanaTransformer:
    torch.manual_seed(3)
    network = initialise(SanaTransformer(CONFIG))
    with torch.no_grad():
        for weight in network.parameters():  # no zero that would hide a block
            weight.add_(0.05 * torch.randn(weight.shape))
    return network.eval()


def velocity(network: SanaTransformer) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(2, 32, 4, 4, generator=generator)
    text = TextStates(torch.randn(2, 3, 16, generator=generator), torch.ones(2, 3, dtype=torch.bool))
    with torch.no_grad():
        out: Tensor = network(latent, torch.tensor([700.0, 50.0]), text)
    return out


def built(old: SanaTransformer, depth: int, how: str, drop: int = 0, **changes: object) -> SanaTransformer:
    config = replace(CONFIG, depth=depth, **changes)
    plan = plan_growth(CONFIG.depth, depth, drop=drop, how=how)
    network = SanaTransformer(config)
    network.load_state_dict(reshape_depth(old.state_dict(), config, plan, torch.Generator().manual_seed(0)))
    return network.eval()


def pruned(old: SanaTransformer, *blocks: int) -> SanaTransformer:
    plan = plan_pruning(CONFIG.depth, blocks)
    config = replace(CONFIG, depth=len(plan))
    network = SanaTransformer(config)
    network.load_state_dict(reshape_depth(old.state_dict(), config, plan, torch.Generator()))
    return network.eval()


@pytest.mark.parametrize("how", ["partial", "progressive"])
@pytest.mark.parametrize(("depth", "drop"), [(9, 0), (7, 1), (5, 3)])
def test_silent_blocks_compute_what_the_kept_ones_did(
    old: SanaTransformer, how: str, depth: int, drop: int
) -> None:
    wanted = velocity(pruned(old, *range(CONFIG.depth - drop)))
    assert torch.allclose(velocity(built(old, depth, how, drop)), wanted, rtol=1e-5, atol=1e-6)


def test_repeats_are_the_blocks_themselves(old: SanaTransformer) -> None:
    orders = {"cyclic": (0, 1, 2, 3, 0, 1, 2, 3), "block-expand": (0, 0, 1, 1, 2, 2, 3, 3)}
    for how, order in orders.items():
        weights = built(old, 8, how).state_dict()
        for number, block in enumerate(order):
            name = "ffn.project.weight"
            assert torch.equal(weights[f"blocks.{number}.{name}"], old.state_dict()[f"blocks.{block}.{name}"])


def test_fresh_blocks_begin_as_published(old: SanaTransformer) -> None:
    network = built(old, 6, "partial", qk_norm=True)
    weights = network.state_dict()
    assert all(bool((weights[f"blocks.{n}.cross.norm_q.weight"] == 1).all()) for n in range(6))
    fresh = {name.removeprefix("blocks.5."): w for name, w in weights.items() if name.startswith("blocks.5.")}
    for name in (
        "attention.out.weight",
        "attention.out.bias",
        "cross.out.weight",
        "cross.q.bias",
        "cross.kv.bias",
    ):
        assert not fresh[name].any(), name
    assert float(fresh["ffn.depthwise.weight"].std()) == pytest.approx(0.2, rel=0.1)
    for name in ("attention.qkv.weight", "cross.kv.weight", "ffn.expand.weight", "table"):
        assert float(fresh[name].std()) == pytest.approx(0.02, rel=0.1), name
    loss = network(torch.randn(1, 32, 4, 4), torch.tensor([500.0]), text_of(1)).square().mean()
    loss.backward()
    last = network.blocks[5].ffn.project.weight.grad
    assert last is not None and bool(last.any())  # a silent block learns from the first step on


def text_of(count: int) -> TextStates:
    return TextStates(torch.randn(count, 3, 16), torch.ones(count, 3, dtype=torch.bool))


def test_a_network_without_its_middle(old: SanaTransformer) -> None:
    small = pruned(old, 0, 3)
    assert len(small.blocks) == 2
    assert torch.equal(small.blocks[1].table, old.blocks[3].table)
    assert not torch.allclose(velocity(small), velocity(old))


def test_the_published_growth(old: SanaTransformer) -> None:
    plan = plan_growth(20, 60)
    assert plan[17] == BlockOrigin(17) and plan[18] == BlockOrigin(None, silent=True) and len(plan) == 60
    assert all(len(make(5, 13)) == 13 for make in GROWTHS.values())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"depth": 4}, "has 4 blocks already: a depth of 4 isn't a growth"),
        ({"depth": 9, "drop": 4}, "drop is 4; of 4 blocks 0 to 3 can go"),
        ({"depth": 9, "how": "magic"}, "unknown growth 'magic': choose one of partial, cyclic"),
    ],
)
def test_growth_that_makes_no_sense(change: dict[str, object], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        plan_growth(4, **change)  # type: ignore[arg-type]


def test_pruning_that_makes_no_sense() -> None:
    with pytest.raises(RequestError, match="there is no block 7: the model has blocks 0 to 3"):
        plan_pruning(4, [1, 7])
    with pytest.raises(RequestError, match="no block would be left"):
        plan_pruning(4, [])
