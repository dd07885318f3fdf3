"""Growth with tokens: the fit, and softmax attention in place of linear."""

from __future__ import annotations

import pytest
import torch

from sanakit.benchmark.scaling import SoftmaxSelfAttention, attention_table, growth, slope
from sanakit.layers import LinearSelfAttention
from sanakit.transformer import PRESETS


def test_the_slope_of_a_power_is_its_exponent() -> None:
    assert slope({n: 3e-6 * n**1.7 for n in (64, 256, 1024)}) == pytest.approx(1.7)


def test_softmax_attention_is_softmax_attention() -> None:
    torch.manual_seed(0)
    layer = LinearSelfAttention(12, 3, eps=1e-15, qk_norm=False, qk_norm_eps=1e-5)
    x = torch.randn(2, 7, 12)
    q, k, v = (part.unflatten(-1, (3, 4)).double() for part in layer.qkv(x).chunk(3, dim=-1))
    weights = torch.einsum("bnhd,bmhd->bhnm", q, k).div(2).softmax(-1)
    wanted = layer.out(torch.einsum("bhnm,bmhd->bnhd", weights, v).flatten(-2).float())
    torch.testing.assert_close(SoftmaxSelfAttention(layer)(x), wanted, rtol=1e-4, atol=1e-5)


def test_both_kinds_are_timed_at_every_size() -> None:
    found = list(growth(PRESETS["toybox"], (2, 4), torch.float32, rounds=1))
    assert [g.kind for g in found] == ["linear", "softmax"]
    assert all(list(g.seconds) == [4, 16] and "exponent" in str(g) for g in found)


def test_the_attention_table_names_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sanakit.benchmark.scaling.median_seconds", lambda work, rounds: 1.0)
    assert set(attention_table(1)) == {"softmax", "linear, heads_first", "linear, reference"}
