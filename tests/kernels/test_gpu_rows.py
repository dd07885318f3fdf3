"""Triton kernels through Triton's interpreter, on the CPU, against float64: values, gradients, odd sizes, poison.

The environment variable that turns the interpreter on is set in tests/conftest.py, before anything imports Triton.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton has no wheel for this system, and its kernels never run here")

from sanakit import kernels
from sanakit.kernels import AttentionState, QKNorm, choice, gpu
from sanakit.kernels.linear_attention import gpu as attention_gpu
from sanakit.kernels.linear_attention import reference as attention
from sanakit.kernels.mix_ffn import gpu as mix_gpu
from sanakit.kernels.mix_ffn import reference as mix
from sanakit.kernels.modulated_norm import gpu as norm_gpu
from sanakit.kernels.modulated_norm import reference as norm
from sanakit.kernels.problem import Problem
from sanakit.kernels.quant_matmul import gpu as int8_gpu
from sanakit.kernels.quant_matmul import reference as int8
from sanakit.kernels.quant_matmul import triton as int8_kernels
from sanakit.kernels.rms_norm import fused
from sanakit.kernels.rms_norm import gpu as residual_gpu
from sanakit.kernels.rms_norm import reference as residual
from sanakit.layers import LinearSelfAttention

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a kernel does not write is NaN, or for whole numbers 77."""
    new, like, plain = torch.Tensor.new_empty, torch.empty_like, torch.empty

    def filled(x: Tensor) -> Tensor:
        return x.fill_(float("nan") if x.is_floating_point() else 77) if x.device.type == "cpu" else x

    monkeypatch.setattr(torch.Tensor, "new_empty", lambda self, *a, **k: filled(new(self, *a, **k)))
    monkeypatch.setattr(torch, "empty_like", lambda x, *a, **k: filled(like(x, *a, **k)))
    monkeypatch.setattr(torch, "empty", lambda *a, **k: filled(plain(*a, **k)))
    yield


def near(got: Tensor, wanted: Tensor, tolerance: float) -> None:
    assert got.shape == wanted.shape
    assert bool(torch.isfinite(got).all())
    assert torch.linalg.norm(got.double() - wanted) <= tolerance * torch.linalg.norm(wanted) + 1e-12


def same_gradients(
    run: Callable[..., Tensor], wanted: Callable[..., Tensor], inputs: Sequence[Tensor], tolerance: float
) -> None:
    """Values and gradients of `run` on `inputs` are those of `wanted` in float64."""
    ours = [x.clone().requires_grad_() for x in inputs]
    exact = [x.double().requires_grad_() for x in inputs]
    got, want = run(*ours), wanted(*exact)
    near(got.detach(), want.detach(), tolerance)
    grad = torch.randn_like(want)
    got.backward(grad.to(got.dtype))
    want.backward(grad)
    for mine, theirs in zip(ours, exact, strict=True):
        assert mine.grad is not None and theirs.grad is not None
        near(mine.grad, theirs.grad, 3 * tolerance)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", [(1, 1, 1, 1, 1), (2, 67, 3, 32, 32), (1, 70, 1, 112, 20)])
@pytest.mark.parametrize("masked", [False, True])
def test_linear_attention(dtype: torch.dtype, size: tuple[int, ...], masked: bool) -> None:
    batch, tokens, heads, width, outputs = size
    joined = torch.randn(batch, tokens, heads, 2 * width + outputs).to(
        dtype
    )  # parts of one tensor: odd strides
    mask = torch.rand(batch, tokens) > 0.4 if masked else None
    if mask is not None:
        mask[:, 0] = True
        joined[~mask][:, :, width:] = float("nan")
    same_gradients(
        lambda x: attention_gpu.linear_attention(*x.split([width, width, outputs], -1), 1e-15, None, mask),
        lambda x: attention.linear_attention(*x.split([width, width, outputs], -1), 1e-15, None, mask),
        [joined], TOLERANCE[dtype],
    )  # fmt: skip


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", [(1, 1, 1, 2), (2, 67, 3, 32), (1, 40, 2, 112)])
@pytest.mark.parametrize("masked", [False, True])
def test_linear_attention_normalises_on_its_way(
    dtype: torch.dtype, size: tuple[int, ...], masked: bool
) -> None:
    batch, tokens, heads, width = size
    joined = torch.randn(batch, tokens, 3 * heads * width).to(dtype)
    joined = joined * torch.rand(batch, tokens, 1).to(dtype) * 9  # tokens of different length
    mask = torch.rand(batch, tokens) > 0.4 if masked else None
    if mask is not None:
        mask[:, 0] = True
        joined[:, :, heads * width :][~mask] = float("nan")
    weights = torch.randn(2, heads * width)

    def run(attend: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def forward(x: Tensor, w: Tensor) -> Tensor:
            parts = (part.unflatten(-1, (heads, width)) for part in x.chunk(3, dim=-1))
            return attend(*parts, 1e-6, None, mask, None, QKNorm(w[0], w[1], 1e-2))

        return forward

    same_gradients(
        run(attention_gpu.qk_norm_linear_attention), run(attention.qk_norm_linear_attention), [joined, weights],
        3 * TOLERANCE[dtype],
    )  # fmt: skip


def test_linear_attention_in_pieces_is_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = (torch.randn(1, 300, 1, 8) for _ in range(3))
    monkeypatch.setattr(gpu, "units", lambda device: 2)
    assert gpu.pieces(300, 64, 1, query.device) == (5, 64)
    got = attention_gpu.linear_attention(query, key, value)
    near(got, attention.linear_attention(query.double(), key.double(), value.double()), 1e-5)


def test_linear_attention_carries_a_state_and_its_gradient() -> None:
    def blockwise(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def forward(*inputs: Tensor) -> Tensor:
            state = AttentionState()
            parts = zip(*(x.split(11, dim=1) for x in inputs), strict=True)
            return torch.cat([run(*part, 1e-15, None, None, state) for part in parts], dim=1)

        return forward

    inputs = [torch.randn(2, 31, 2, 16) for _ in range(3)]
    same_gradients(
        blockwise(attention_gpu.linear_attention), blockwise(attention.linear_attention), inputs, 1e-5
    )


@pytest.mark.parametrize(
    ("size", "bias", "dtype"),
    [
        ((1, 1, 1, 1), True, torch.float32),
        ((2, 3, 5, 11), False, torch.bfloat16),
        ((1, 66, 10, 3), True, torch.float32),
    ],
)
def test_gated_depthwise(size: tuple[int, ...], bias: bool, dtype: torch.dtype) -> None:
    batch, hidden, height, width = size
    x = torch.randn(batch, 2 * hidden, height, width).to(dtype)
    weight = torch.randn(2 * hidden, 1, 3, 3).to(dtype)
    added = [torch.randn(2 * hidden).to(dtype)] if bias else []
    same_gradients(
        lambda x, w, *b: mix_gpu.gated_depthwise(x, w, b[0] if b else None),
        lambda x, w, *b: mix.gated_depthwise(x, w, b[0] if b else None),
        [x, weight, *added], TOLERANCE[dtype],
    )  # fmt: skip


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", [(1, 1, 2), (3, 7, 100), (2, 5, 128)])
@pytest.mark.parametrize("shared", [True, False])
def test_modulated_norm(dtype: torch.dtype, size: tuple[int, ...], shared: bool) -> None:
    batch, tokens, width = size
    x = (torch.randn(batch, tokens, width) + 3).to(dtype)
    both = torch.randn(1 if shared else batch, 2, width).to(dtype)
    same_gradients(
        lambda x, m: norm_gpu.modulated_norm(x, *m.chunk(2, dim=1), 1e-3),
        lambda x, m: norm.modulated_norm(x, *m.chunk(2, dim=1), 1e-3),
        [x, both], 3 * TOLERANCE[dtype],
    )  # fmt: skip


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", [(1, 1, 2), (3, 7, 100), (2, 5, 128)])
@pytest.mark.parametrize("gated", [True, False])
def test_residual_norm_modulated(dtype: torch.dtype, size: tuple[int, ...], gated: bool) -> None:
    """Both results are asked for a gradient at once."""
    batch, tokens, width = size
    both = torch.randn(2, batch, tokens, width).to(dtype)
    modulation = torch.randn(1 if tokens == 7 else batch, 3, width).to(dtype)

    def run(norm: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., Tensor]:
        def forward(both: Tensor, modulation: Tensor) -> Tensor:
            gate, shift, scale = modulation.chunk(3, dim=1)
            gate = gate if gated else None
            return torch.stack(norm(both[0], both[1], gate, shift, scale, 1e-3))

        return forward

    same_gradients(
        run(norm_gpu.add_norm_modulate), run(norm.add_norm_modulate), [both, modulation],
        3 * TOLERANCE[dtype],
    )  # fmt: skip


@pytest.mark.parametrize("gated", [True, False])
def test_a_sum_before_a_norm_is_as_wide_as_torch_makes_it(gated: bool) -> None:
    """As under autocast: a branch in bf16 onto a residual in float32, each with a gradient of its own dtype."""
    x, shift, scale = torch.randn(1, 3, 8, requires_grad=True), torch.randn(1, 1, 8), torch.randn(1, 1, 8)
    branch = torch.randn(1, 3, 8).bfloat16().requires_grad_()
    gate = torch.randn(1, 1, 8) if gated else None
    found = []
    for run in (norm_gpu.add_norm_modulate, norm.add_norm_modulate):
        outputs = run(x, branch, gate, shift, scale, 1e-6)
        gradients = torch.autograd.grad(outputs, (x, branch), tuple(map(torch.cos, outputs)))
        found.append((*outputs, *gradients))
    for ours, wanted in zip(*found, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-2, atol=1e-4)
    narrow = norm_gpu.add_norm_modulate(branch, branch, gate, shift, scale, 1e-6)[0]
    assert narrow.dtype == (torch.float32 if gated else torch.bfloat16)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("adds", [True, False])
def test_a_norm_that_rounds_gives_what_the_product_would_have_made(dtype: torch.dtype, adds: bool) -> None:
    x, gate, shift, scale = (torch.randn(2, n, 100).to(dtype) for n in (5, 1, 1, 1))
    added = (torch.randn_like(x), gate) if adds else (None, None)
    total, tokens = norm_gpu.add_norm_modulate_quant(x, *added, shift, scale, 1e-6)
    if adds:
        wanted, plain = norm_gpu.add_norm_modulate(x, *added, shift, scale, 1e-6)
    else:
        wanted, plain = x, norm_gpu.modulated_norm(x, shift, scale)
    assert torch.equal(total, wanted)
    values, scales = int8.quantise_tokens(plain)
    assert torch.equal(tokens.values, values) and torch.equal(tokens.scales, scales)
    weight, per_output = int8.quantise_rows(torch.randn(7, 100))
    bias = torch.randn(7).to(dtype)
    for run in (int8_gpu.int8_matmul, int8.int8_matmul):
        near(
            run(tokens, weight, per_output, bias, "silu"),
            int8.int8_matmul(plain.double(), weight, per_output, bias, "silu"), TOLERANCE[dtype],
        )  # fmt: skip


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", [(1, 1, 1, 1), (2, 100, 3, 5), (1, 64, 9, 7)])
@pytest.mark.parametrize("adds", [True, False])
def test_residual_norm(dtype: torch.dtype, size: tuple[int, ...], adds: bool) -> None:
    x, added = torch.randn(size).to(dtype), torch.randn(size).to(dtype) if adds else None
    weight, bias = torch.randn(size[1]).to(dtype), torch.randn(size[1]).to(dtype)
    wide = None if added is None else added.double()
    for b in (bias, None):
        got = residual_gpu.rms_norm(x, added, weight, b, 1e-5)
        exact = None if b is None else b.double()
        near(got, residual.rms_norm(x.double(), wide, weight.double(), exact, 1e-5), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", [(1, 3, 1, 1), (2, 100, 3, 5)])
@pytest.mark.parametrize("adds", [True, False])
def test_the_norm_that_is_trained(dtype: torch.dtype, size: tuple[int, ...], adds: bool) -> None:
    """Values and gradients of torch's kernel; weights stay float32 beside a map in half precision, as in autocast."""
    x, added = (torch.randn(size).to(dtype).contiguous(memory_format=torch.channels_last) for _ in range(2))
    leaves = [x, *([added] if adds else []), torch.randn(size[1]), torch.randn(size[1])]
    down = torch.randn(size)
    found = []
    for run, cast in ((fused.rms_norm, torch.Tensor.clone), (residual.rms_norm, torch.Tensor.double)):
        mine = [cast(leaf.detach()).requires_grad_() for leaf in leaves]
        first, *more, weight, bias = mine
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = run(first, more[0] if more else None, weight, bias, 1e-5)
        found.append([out, *torch.autograd.grad((out * down.to(out.dtype)).sum(), mine)])
    assert found[0][0].dtype == dtype
    for got, wanted in zip(*found, strict=True):
        near(got, wanted, TOLERANCE[dtype])


def test_the_norm_that_is_trained_is_for_gpus() -> None:
    assert fused.unsupported(Problem("rms_norm", "cpu", torch.float32)) == "is a kernel of CUDA GPUs"
    assert fused.unsupported(Problem("rms_norm", "cuda", torch.float32)) is None


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_tokens_are_rounded_as_the_reference_rounds(dtype: torch.dtype) -> None:
    x = (torch.randn(40, 300) * torch.logspace(-6, 4, 40)[:, None]).to(dtype)
    x[3] = 0
    values, scales = int8_kernels.quantise(x)
    wanted, wanted_steps = int8.quantise_tokens(x)
    assert torch.equal(values, wanted)
    assert torch.equal(scales, wanted_steps)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", [(1, 1, 1), (5, 33, 7), (130, 300, 129)])
@pytest.mark.parametrize("act", ["none", "silu"])
def test_int8_product(dtype: torch.dtype, size: tuple[int, ...], act: str) -> None:
    tokens, inputs, outputs = size
    x, bias = torch.randn(tokens, inputs).to(dtype), torch.randn(outputs).to(dtype)
    weight, scales = int8.quantise_rows(torch.randn(outputs, inputs))
    for b in (bias, None):
        got = int8_gpu.int8_matmul(x, weight, scales, b, act)
        near(got, int8.int8_matmul(x.double(), weight, scales, b, act), TOLERANCE[dtype])


def test_int8_product_has_the_gradient_of_the_reference() -> None:
    weight, scales = int8.quantise_rows(torch.randn(9, 20))
    same_gradients(
        lambda x, b: int8_gpu.int8_matmul(x, weight, scales, b, "silu"),
        lambda x, b: int8.int8_matmul(x, weight, scales, b, "silu"),
        [torch.randn(2, 3, 20), torch.randn(9)], 1e-5,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:invalid value")  # numpy's, from inside the interpreter
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_visible(bad: float) -> None:
    x = torch.randn(1, 6, 2, 4)
    x[0, 2, 1, 0] = bad
    assert not bool(torch.isfinite(attention_gpu.linear_attention(x, x, x)[:, :, 1]).any())
    weight, scales = int8.quantise_rows(torch.randn(5, 4))
    product = int8_gpu.int8_matmul(x[:, :, 1], weight, scales, None)
    assert bool(product[0, 2].isnan().all()) and bool(product[0, :2].isfinite().all())


def test_operators_are_whole_to_a_compiler() -> None:
    """One graph without a break, forward and backward, and the numbers of the reference."""

    def both(x: Tensor, w: Tensor) -> Tensor:
        tokens = attention_gpu.linear_attention(*x.chunk(3, dim=-1)).flatten(2)  # [B, N, D]
        maps = tokens.transpose(1, 2).unflatten(2, (2, 3))
        return mix_gpu.gated_depthwise(maps, w, None)

    def wanted(x: Tensor, w: Tensor) -> Tensor:
        tokens = attention.linear_attention(*x.chunk(3, dim=-1)).flatten(2)
        return mix.gated_depthwise(tokens.transpose(1, 2).unflatten(2, (2, 3)), w, None)

    compiled = torch.compile(both, backend="aot_eager", fullgraph=True)
    same_gradients(compiled, wanted, [torch.randn(1, 6, 2, 12), torch.randn(8, 1, 3, 3)], 1e-5)


def operators_in(run: Callable[..., Tensor], *inputs: Tensor) -> set[str]:
    """Names of the house's operators that a compiler is given, in one graph without a break."""
    torch._dynamo.reset()
    seen: set[str] = set()

    def look(graph: torch.fx.GraphModule, inputs: object) -> torch.fx.GraphModule:
        seen.update(str(node.target) for node in graph.graph.nodes if "sanakit" in str(node.target))
        return graph

    torch.compile(run, backend=look, fullgraph=True)(*inputs)
    return {name.removeprefix("sanakit.").removesuffix(".default") for name in seen}


def test_a_compiler_is_given_the_operators_of_the_table(triton_everywhere: None) -> None:
    q, w, x = torch.randn(1, 6, 2, 4), torch.randn(8), _last(torch.randn(1, 4, 2, 3))
    attend = operators_in(lambda q, w: kernels.linear_attention(q, q, q, norm=QKNorm(w, w, 1e-5)), q, w)
    assert attend == {"token_rstd", "attention_kv_state", "attention_output"}
    mixed = operators_in(lambda x, w: kernels.gated_depthwise(x, w, None), x, torch.randn(4, 1, 3, 3))
    assert mixed == {"gated_depthwise"}
    weight, scales = int8.quantise_rows(torch.randn(5, 4))
    product = operators_in(lambda x: kernels.int8_matmul(x, weight, scales, None, "silu"), torch.randn(3, 4))
    assert product == {"int8_matmul_gpu"}
    with choice.avoid("triton"):
        assert operators_in(lambda q: kernels.linear_attention(q, q, q), q) == set()


def test_a_layer_with_qk_norm_runs_on_the_row_that_normalises(triton_everywhere: None) -> None:
    """Values and gradients of the layer are those of the rows without it."""
    layer = LinearSelfAttention(24, 2, eps=1e-15, qk_norm=True, qk_norm_eps=1e-5)
    for weight in (layer.norm_q.weight, layer.norm_k.weight):
        torch.nn.init.normal_(weight)
    x, found = torch.randn(2, 5, 24), []
    for row in ("triton", "heads_first"):
        layer.zero_grad()
        with choice.force("qk_norm_linear_attention", row), choice.force("rms_norm", "reference"):
            out = layer(x)
        out.square().sum().backward()
        found.append([out, *(parameter.grad for parameter in layer.parameters())])
    for ours, wanted in zip(*found, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-4)


def test_kernels_are_launched_where_their_tensors_are(monkeypatch: pytest.MonkeyPatch) -> None:
    guarded = []
    device_of = torch.cuda.device_of
    monkeypatch.setattr(torch.cuda, "device_of", lambda x: (guarded.append(x.shape), device_of(x))[1])
    attention_gpu.linear_attention(*(torch.randn(1, 3, 1, 4) for _ in range(3)))
    assert guarded == [(1, 3, 1, 4)] * 2


def test_every_row_says_why_it_does_not_run_here() -> None:
    cuda = Problem("linear_attention", "cuda", torch.bfloat16, (("rotary", 1),))
    assert attention_gpu.unsupported(cuda) == "turns no rotary angles"
    wide = Problem("linear_attention", "cuda", torch.bfloat16, (("rotary", 0), ("width", 256)))
    assert "at most 128" in (attention_gpu.unsupported(wide) or "")
    assert gpu.unsupported(Problem("x", "cpu", torch.bfloat16)) == "runs on CUDA GPUs only"
    assert "float64" in (gpu.unsupported(Problem("x", "cuda", torch.float64)) or "")


def test_an_old_gpu_is_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.unavailable.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    try:
        assert gpu.unavailable() == "needs a GPU of compute capability 8.0 or newer, and this one has 7.5"
    finally:
        gpu.unavailable.cache_clear()


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
