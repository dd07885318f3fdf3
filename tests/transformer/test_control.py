"""The ControlNet equals diffusers' SanaControlNetModel and the official wiring, and steers the base as they do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import SanaControlNetModel, SanaTransformer2DModel
from torch import Tensor

from sanakit.base.sizes import Grid
from sanakit.base.text_states import TextStates
from sanakit.transformer import (
    ControlConfig,
    ControlNet,
    SanaTransformer,
    TransformerConfig,
    copy_base,
    placed,
)
from sanakit.weights.formats import diffusers_control, diffusers_transformer
from tests.oracles.bounds import within

BASE = TransformerConfig(latent_channels=4, width=32, depth=4, heads=4, cross_heads=2, text_width=12)
BASES = {
    "sana": BASE,
    "positions": replace(BASE, position_scale=2.0, sample_size=8),
    "patch": replace(BASE, patch_size=2),
}
TIME = torch.tensor([3.0, 421.0, 999.0])


def inputs(config: TransformerConfig, height: int = 6, width: int = 10) -> tuple[Tensor, Tensor, TextStates]:
    """A latent, a control and a text of three samples."""
    states = torch.randn(3, 9, config.text_width) * 20
    mask = torch.arange(9)[None] < torch.tensor([[9], [4], [1]])
    shape = (3, config.latent_channels, height, width)
    return torch.randn(shape), torch.randn(shape), TextStates(states, mask)


def shaken(module: Any, std: float = 0.15) -> Any:
    """The module with all of its weights random, zeros included."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=std)
    return module.eval()


@pytest.mark.parametrize("name", BASES)
@torch.no_grad()
def test_residuals_and_the_steered_velocity_are_those_of_diffusers(name: str) -> None:
    base = BASES[name]
    config = ControlConfig(backbone=replace(base, depth=3))
    theirs = shaken(SanaControlNetModel.from_config(diffusers_control.to_config(config)))
    their_base = shaken(SanaTransformer2DModel.from_config(diffusers_transformer.to_config(base)))
    ours, our_base = ControlNet(config).eval(), SanaTransformer(base).eval()
    ours.load_state_dict(diffusers_control.table(config).to_ours(theirs.state_dict()))
    our_base.load_state_dict(diffusers_transformer.table(base).to_ours(their_base.state_dict()))
    latent, control, text = inputs(base)
    common = {
        "encoder_hidden_states": text.states,
        "timestep": TIME,
        "encoder_attention_mask": text.mask.float(),
    }

    want = theirs(latent, controlnet_cond=control, conditioning_scale=0.7, **common).controlnet_block_samples
    got = ours(latent, TIME, text, control) * 0.7
    within("ControlNet, residuals", got, torch.stack(list(want)), 3e-6)
    steered = our_base(latent, TIME, text, residuals=placed(config, got))
    their_velocity = their_base(latent, controlnet_block_samples=tuple(want), **common).sample
    within("ControlNet, velocity", steered, their_velocity, 3e-6)
    assert not torch.allclose(steered, our_base(latent, TIME, text), atol=1e-3)


@torch.no_grad()
def test_the_official_wiring_starts_behind_block_0_and_adds_each_residual_one_block_earlier() -> None:
    base = shaken(SanaTransformer(BASE))
    config = ControlConfig(backbone=replace(BASE, depth=3), lead=1)
    net = shaken(ControlNet(config))
    for part in ("patch", "time", "modulation", "text"):
        getattr(net, part).load_state_dict(getattr(base, part).state_dict())
    net.blocks[0].load_state_dict(base.blocks[0].state_dict())
    latent, control, text = inputs(BASE)
    assert (config.copies, config.first) == (2, 0)

    # SanaMSControlNet.forward, with the parts of our networks
    grid, tokens = Grid.of(latent, 1), base.embed_text(text)
    t_emb = base.embed_time(TIME, None)
    modulation = base.modulation(torch.nn.functional.silu(t_emb)).unflatten(-1, (1, 6, -1))
    rest = (modulation, tokens, text.mask, grid)
    x = base.blocks[0](base.embed_latent(latent, grid, BASE.positions), *rest)
    signal = net.blocks[1](x + net.input(base.embed_latent(control, grid, BASE.positions)), *rest)
    x = base.blocks[1](x + net.outputs[0](signal), *rest)
    signal = net.blocks[2](signal, *rest)
    x = base.blocks[2](x + net.outputs[1](signal), *rest)
    want = base.unpatch(base.head(base.blocks[3](x, *rest), t_emb), grid)

    got = base(latent, TIME, text, residuals=placed(config, net(latent, TIME, text, control)))
    within("ControlNet, official wiring", got, want, 3e-6)


@torch.no_grad()
def test_a_copy_of_the_base_changes_nothing_until_it_is_trained() -> None:
    config = replace(BASE, qk_norm=True, guidance_embed=True)
    base = shaken(SanaTransformer(config))
    net = copy_base(base, 2)
    latent, control, text = inputs(config)
    guidance = torch.tensor([4.5])
    residuals = net(latent, TIME, text, control, guidance)
    assert residuals.shape == (2, 3, 60, 32) and not residuals.any()
    plain = base(latent, TIME, text, guidance)
    assert torch.equal(base(latent, TIME, text, guidance, residuals=placed(net.control, residuals)), plain)
    # Its blocks are the base's, and its own: training one leaves the other.
    assert torch.equal(net.blocks[1].table, base.blocks[1].table)
    net.blocks[1].table += 1
    assert not torch.equal(net.blocks[1].table, base.blocks[1].table)


def test_precomputed_text_and_one_time_for_all_give_the_same_residuals() -> None:
    config = ControlConfig(backbone=replace(BASE, depth=2))
    net = shaken(ControlNet(config))
    latent, control, text = inputs(BASE)
    with torch.no_grad():
        want = net(latent, torch.full((3,), 421.0), text, control[:1])
        got = net(latent, torch.tensor([421.0]), net.precompute_text(text), control[:1])
    within("ControlNet, precomputed text", got, want, 1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 64, "heads": 4, "cross_heads": 2}, "has width 32, and the model has 64"),
        ({"patch_size": 2}, "has patch_size 1, and the model has 2"),
        ({"text_width": 13}, "has text_width 12, and the model has 13"),
        ({"depth": 3}, "steers blocks 1 to 3, and the model has 3"),
    ],
)
def test_a_base_of_another_shape_is_told_in_words(changes: dict[str, Any], words: str) -> None:
    config = ControlConfig(backbone=replace(BASE, depth=3))
    assert config.mismatch(BASE) is None
    assert config.mismatch(replace(BASE, **changes)) == words


def test_a_base_with_too_few_blocks_is_not_copied() -> None:
    with pytest.raises(ValueError, match="one more of them, not 4"):
        copy_base(SanaTransformer(BASE), 4)
