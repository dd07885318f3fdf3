"""References of the operators against their formulas in float64: values and gradients, odd sizes, every dtype."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from sanakit.base import ConfigError
from sanakit.kernels import AttentionState, choice, gated_depthwise, linear_attention, modulated_norm, table
from sanakit.kernels.linear_attention.reference import rotate_pairs
from sanakit.kernels.mix_ffn.cpu import depthwise
from sanakit.kernels.mix_ffn.cpu import gated_depthwise as compiled

SIZES = [(1, 1, 1, 1), (2, 7, 3, 5), (3, 33, 2, 32), (1, 65, 1, 112)]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def quadratic(query: Tensor, key: Tensor, value: Tensor, eps: float) -> Tensor:
    """The same attention with its N x N weights written out, in float64."""
    q, k, v = query.double().relu(), key.double().relu(), value.double()
    weights = torch.einsum("bnhd,bmhd->bhnm", q, k)
    return torch.einsum("bhnm,bmhe->bnhe", weights / (weights.sum(-1, keepdim=True) + eps), v)


def naive_ffn(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Depthwise convolution by nine shifted products, in float64."""
    h = x.double() * x.double().sigmoid()
    padded = torch.nn.functional.pad(h, (1, 1, 1, 1))
    height, width = x.shape[-2:]
    out = bias.double()[:, None, None] + sum(
        padded[..., i : i + height, j : j + width] * weight.double()[:, 0, i, j, None, None]
        for i in range(3)
        for j in range(3)
    )
    value, gate = out.chunk(2, dim=1)
    return value * gate * gate.sigmoid()


def naive_norm(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    wide = x.double()
    centred = wide - wide.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return normed * (1 + scale.double()) + shift.double()


def agree(
    fast: Callable[..., Tensor], slow: Callable[..., Tensor], inputs: list[Tensor], tolerance: float
) -> None:
    """Values and gradients of `fast` equal those of `slow` within a relative bound."""
    wide = [x.detach().double().requires_grad_() for x in inputs]
    narrow = [x.detach().clone().requires_grad_() for x in inputs]
    got, want = fast(*narrow), slow(*wide)
    assert got.dtype == inputs[0].dtype
    assert torch.linalg.norm(got.double() - want) <= tolerance * torch.linalg.norm(want) + 1e-12
    weight = torch.randn_like(want)
    (got.double() * weight).sum().backward()
    (want * weight).sum().backward()
    for a, b in zip(narrow, wide, strict=True):
        assert torch.linalg.norm(a.grad.double() - b.grad) <= tolerance * max(torch.linalg.norm(b.grad), 1.0)


@pytest.mark.parametrize("row", ["heads_first", "reference"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_linear_attention(row: str, size: tuple[int, ...], dtype: torch.dtype) -> None:
    inputs = [(torch.randn(size) + 0.3).to(dtype) for _ in range(3)]
    with choice.force("linear_attention", row):
        agree(
            lambda q, k, v: linear_attention(q, k, v, 1e-8),
            lambda q, k, v: quadratic(q, k, v, 1e-8),
            inputs,
            TOLERANCE[dtype],
        )


@pytest.mark.parametrize("row", ["heads_first", "reference"])
def test_linear_attention_reads_slices_and_leaves_them_alone(row: str) -> None:
    """q, k and v as slices of one product, values of another width than keys, and no write into either."""
    joined = torch.randn(2, 9, 3 * 24)
    before = joined.clone()
    q, k, v = (part.unflatten(-1, (4, -1)) for part in joined.chunk(3, dim=-1))
    with choice.force("linear_attention", row):
        torch.testing.assert_close(
            linear_attention(q, k, v[..., :5], 1e-8).double(), quadratic(q, k, v[..., :5], 1e-8)
        )
    assert torch.equal(joined, before)


@pytest.mark.parametrize("row", ["heads_first", "reference"])
def test_linear_attention_sums_in_float32(row: str) -> None:
    """4,096 equal keys of 64: their sum leaves fp16's range, the mean of the values does not."""
    key = torch.full((1, 4096, 1, 8), 64.0, dtype=torch.float16)
    value = torch.randn(1, 4096, 1, 8).half()
    with choice.force("linear_attention", row):
        out = linear_attention(key, key, value)
    torch.testing.assert_close(out[0, 0, 0], value[0, :, 0].float().mean(0).half(), atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("row", ["heads_first", "reference"])
def test_masked_tokens_are_as_if_they_were_not_there(row: str) -> None:
    """Values and gradients are those of the real tokens alone, and what padding holds does not matter."""
    q, k, v = (torch.randn(2, 9, 3, 5) for _ in range(3))
    mask = torch.arange(9) < torch.tensor([[6], [9]])
    poisoned = [x.clone() for x in (k, v)]
    for x in poisoned:
        x[0, 6:] = float("nan")
    inputs = [x.requires_grad_() for x in (q.clone(), *poisoned)]
    with choice.force("linear_attention", row):
        got = linear_attention(*inputs, 1e-8, mask=mask)
        for sample, count in enumerate((6, 9)):
            alone = [x[sample : sample + 1, :count].clone().requires_grad_() for x in (q, k, v)]
            wanted = linear_attention(*alone, 1e-8)
            torch.testing.assert_close(got[sample : sample + 1, :count], wanted)
            wanted.sum().backward()
            got[sample, :count].sum().backward(retain_graph=True)
            for x, part in zip(inputs, alone, strict=True):
                torch.testing.assert_close(x.grad[sample, :count], part.grad[0])
        assert all(not x.grad[0, 6:].any() for x in inputs[1:])


@pytest.mark.parametrize("row", ["heads_first", "reference"])
def test_blocks_that_hand_on_their_state_see_all_before_them(row: str) -> None:
    """Block by block equals every token seeing its own block and the earlier ones: values and gradients."""
    inputs = [torch.randn(2, 11, 3, 5, requires_grad=True) for _ in range(3)]
    cuts = (0, 4, 5, 11)
    with choice.force("linear_attention", row):
        state, parts = AttentionState(), []
        for start, stop in pairwise(cuts):
            parts.append(linear_attention(*(x[:, start:stop] for x in inputs), 1e-8, state=state))
    wanted = torch.cat(
        [quadratic(inputs[0][:, a:b], inputs[1][:, :b], inputs[2][:, :b], 1e-8) for a, b in pairwise(cuts)], 1
    )
    got = torch.cat(parts, 1)
    torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-5)
    assert (state.product.shape, state.total.shape) == ((2, 3, 5, 5), (2, 3, 5))
    assert state.product.dtype == torch.float32
    weight = torch.randn_like(got)
    found = torch.autograd.grad((got * weight).sum(), inputs, retain_graph=True)
    asked = torch.autograd.grad((wanted * weight).sum(), inputs)
    for one, other in zip(found, asked, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_turned_blocks_hand_on_turned_sums() -> None:
    q, k, v = (torch.randn(1, 8, 2, 6) for _ in range(3))
    angles, state = torch.randn(8, 3), AttentionState()
    linear_attention(q[:, :3], k[:, :3], v[:, :3], 1e-8, angles[:3], state=state)
    got = linear_attention(q[:, 3:], k[:, 3:], v[:, 3:], 1e-8, angles[3:], state=state)
    torch.testing.assert_close(got, linear_attention(q, k, v, 1e-8, angles)[:, 3:])


def test_linear_attention_under_autocast_keeps_float32_sums() -> None:
    q, k, v = (torch.rand(1, 300, 2, 8) for _ in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        got = linear_attention(q, k, v)
    torch.testing.assert_close(got, linear_attention(q, k, v))


def test_rotation_touches_the_numerator_only() -> None:
    q, k, v = (torch.randn(2, 9, 2, 6) for _ in range(3))
    angles = torch.rand(9, 3) * 6
    got = linear_attention(q, k, v, 1e-15, angles)
    relu_q, relu_k = q.relu(), k.relu()
    turned = torch.einsum("bnhd,bmhd->bhnm", rotate_pairs(relu_q, angles), rotate_pairs(relu_k, angles))
    plain = torch.einsum("bnhd,bmhd->bhnm", relu_q, relu_k)
    want = torch.einsum("bhnm,bmhe->bnhe", turned / (plain.sum(-1, keepdim=True) + 1e-15), v)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(1, 2, 1, 1), (2, 6, 5, 3), (1, 10, 2, 9)])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("channels_last", [False, True])
def test_gated_depthwise(size: tuple[int, ...], dtype: torch.dtype, channels_last: bool) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.randn(size).to(dtype).contiguous(memory_format=layout)
    weight, bias = torch.randn(size[1], 1, 3, 3).to(dtype), torch.randn(size[1]).to(dtype)
    agree(gated_depthwise, naive_ffn, [x, weight, bias], TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("has_bias", [True, False])
def test_gated_depthwise_as_it_is_compiled(dtype: torch.dtype, has_bias: bool) -> None:
    """Traced with its layouts, forward and backward, from channels-last and plain inputs."""
    traced = torch.compile(gated_depthwise, backend="aot_eager", fullgraph=True)
    for last in (True, False):
        x = torch.randn(3, 10, 5, 7).to(dtype)
        x = x.contiguous(memory_format=torch.channels_last) if last else x
        weight, bias = torch.randn(10, 1, 3, 3).to(dtype), torch.randn(10).to(dtype)
        if has_bias:
            agree(traced, naive_ffn, [x, weight, bias], TOLERANCE[dtype])
        else:
            agree(
                lambda x, w: traced(x, w, None),
                lambda x, w: naive_ffn(x, w, torch.zeros(10)),
                [x, weight],
                TOLERANCE[dtype],
            )


def test_the_compiled_depthwise_is_a_sound_operator() -> None:
    """Schema, fake tensors and autograd agree with what it does."""
    x = torch.randn(2, 6, 5, 3).contiguous(memory_format=torch.channels_last)
    parts = [torch.randn(6, 1, 3, 3), torch.randn(6)]
    torch.library.opcheck(depthwise, [t.requires_grad_() for t in (x, *parts)])


def test_the_compiled_depthwise_follows_autocast() -> None:
    x, weight, bias = torch.randn(2, 6, 5, 3), torch.randn(6, 1, 3, 3), torch.randn(6)
    with torch.autocast("cpu", torch.bfloat16):
        assert compiled(x, weight, bias).dtype == torch.bfloat16
    assert compiled(x, weight, bias).dtype == torch.float32


@pytest.mark.parametrize("size", [(1, 1, 3), (2, 7, 33), (3, 5, 64)])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_modulated_norm(size: tuple[int, ...], dtype: torch.dtype) -> None:
    x = (torch.randn(size) * 3 + 1).to(dtype)
    shift, scale = (torch.randn(size[0], 1, size[2]).to(dtype) for _ in range(2))
    agree(
        lambda a, b, c: modulated_norm(a, b, c, 1e-6),
        lambda a, b, c: naive_norm(a, b, c, 1e-6),
        [x, shift, scale],
        TOLERANCE[dtype] * 2,
    )


@pytest.mark.parametrize("row", ["layer_norm", "reference"])
@pytest.mark.parametrize("size", [(1, 1, 3), (2, 7, 33), (3, 5, 64)])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_modulated_norm_with_one_modulation_for_all(
    row: str, size: tuple[int, ...], dtype: torch.dtype
) -> None:
    x = (torch.randn(size) * 3 + 1).to(dtype)
    shift, scale = (torch.randn(1, 1, size[2]).to(dtype) for _ in range(2))
    with choice.force("modulated_norm", row):
        agree(
            modulated_norm, lambda a, b, c: naive_norm(a, b, c, 1e-6), [x, shift, scale], TOLERANCE[dtype] * 2
        )


def test_layers_go_through_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def spy(*args: object) -> Tensor:
        called.append(args)
        return torch.zeros(1, 4, 1, 2)

    row = table.Implementation("linear_attention", "spy", spy)
    monkeypatch.setattr(table, "TABLE", (row, *table.TABLE))
    choice._select.cache_clear()
    q = torch.randn(1, 4, 1, 2)
    assert linear_attention(q, q, q).abs().sum() == 0
    with choice.force("linear_attention", "reference"):
        assert linear_attention(q, q, q).abs().sum() > 0
    assert len(called) == 1
    monkeypatch.undo()
    choice._select.cache_clear()
    with pytest.raises(ConfigError):
        choice.select("linear_attention", choice.Problem("modulated_norm", "cpu", torch.float32))
