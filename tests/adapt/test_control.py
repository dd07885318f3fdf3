"""Edits of a ControlNet, and of a transformer under control: recorded, packed, quantised, they compute the same."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sanakit.adapt import Int8Linear, pack, quantise
from sanakit.adapt.graphs import record
from sanakit.base.text_states import TextStates
from sanakit.transformer import ControlConfig, ControlNet, SanaTransformer, TransformerConfig, placed
from tests.adapt.test_graphs import CONFIG, Recorder
from tests.oracles.bounds import within

WIDE = TransformerConfig(latent_channels=4, width=256, depth=3, heads=8, cross_heads=4, text_width=16)


def shaken(net: ControlNet) -> ControlNet:
    torch.manual_seed(2)
    for layer in (net.input, *net.outputs):
        torch.nn.init.normal_(layer.weight, std=0.1)
    return net.eval().requires_grad_(False)


def inputs(width: int) -> tuple[Tensor, Tensor, TextStates, Tensor]:
    text = TextStates(torch.randn(2, 5, width), torch.ones(2, 5, dtype=torch.bool))
    return torch.randn(2, 4, 8, 8), torch.tensor([500.0]), text, torch.randn(1, 4, 8, 8)


@torch.no_grad()
def test_steps_under_control_are_recorded_apart_and_replayed() -> None:
    base = SanaTransformer(CONFIG).eval().requires_grad_(False)
    torch.nn.init.normal_(base.head.out.weight)
    net = shaken(ControlNet(ControlConfig(backbone=replace(CONFIG, depth=2))))
    recorder, of_net = Recorder(), Recorder()
    recorded, recorded_net = record(base, recorder), record(net, of_net)
    for _ in range(2):
        latent, time, text, control = inputs(CONFIG.text_width)
        own, own_net = base.precompute_text(text), net.precompute_text(text)
        residuals = net(latent, time, own_net, control)
        within("recorded ControlNet", recorded_net(latent, time, own_net, control), residuals, 1e-5)
        want = base(latent, time, own, residuals=placed(net.control, residuals))
        got = recorded(latent, time, own, residuals=placed(net.control, residuals))
        within("recorded step under control", got, want, 1e-5)
        within("recorded step", recorded(latent, time, own), base(latent, time, own), 1e-5)
        assert not torch.allclose(want, base(latent, time, own), atol=1e-3)
    assert (recorder.recorded, of_net.recorded) == (2, 1)


@torch.no_grad()
def test_packed_it_computes_the_same_and_in_int8_its_projections_stay() -> None:
    net = shaken(ControlNet(ControlConfig(backbone=replace(WIDE, depth=2))))
    latent, time, text, control = inputs(WIDE.text_width)
    want = net(latent, time, text, control)
    report = quantise(net)
    assert isinstance(net.blocks[0].attention.qkv, Int8Linear)
    assert {"input", "outputs.0", "outputs.1"} <= report.kept.keys()
    within("ControlNet in int8", net(latent, time, text, control), want, 0.05)
    plain = shaken(ControlNet(ControlConfig(backbone=replace(WIDE, depth=2))))
    want = plain(latent, time, text, control)
    pack(plain)
    within("packed ControlNet", plain(latent, time, text, control), want, 1e-5)
