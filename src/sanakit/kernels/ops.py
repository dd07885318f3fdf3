"""The operators as the rest of the program calls them: each asks the table, then runs its row.

Shapes and formulas are those of the references, named at each operator.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor

from sanakit.kernels.choice import choose, run, select
from sanakit.kernels.linear import Act
from sanakit.kernels.linear_attention.reference import AttentionState
from sanakit.kernels.problem import Problem, needs_grad
from sanakit.kernels.quant_matmul.reference import QuantTokens
from sanakit.kernels.rms_norm.reference import QKNorm


def linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    eps: float = 1e-15,
    angles: Tensor | None = None,
    mask: Tensor | None = None,
    state: AttentionState | None = None,
    norm: QKNorm | None = None,
) -> Tensor:
    """ReLU linear attention, [B, N, H, D] each -> [B, N, H, D], with a qk-norm before it unless `norm` is None.

    See `linear_attention/reference.py`: `linear_attention`, and with a norm `qk_norm_linear_attention`.
    """
    facts = {"rotary": int(angles is not None), "width": max(query.shape[-1], value.shape[-1])}
    given = (query, key, value, eps, angles, mask, state)
    if norm is None:
        return run("linear_attention", value, **facts)(*given)
    return run("qk_norm_linear_attention", value, **facts)(*given, norm)


def gated_depthwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """SiLU, depthwise 3x3, gate: [B, 2F, h, w] -> [B, F, h, w]; see `mix_ffn/reference.py`."""
    return run("gated_depthwise", x)(x, weight, bias)


def depthwise_glu(value: Tensor, gate: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Depthwise 3x3 of activated halves, gate: [B, F, h, w] each -> the same; see `mix_ffn/reference.py`."""
    training = needs_grad(value, gate, weight, bias)
    return run("depthwise_glu", value, training=training)(value, gate, weight, bias)


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """LayerNorm, scale, shift: [B, N, D] -> [B, N, D]; see `modulated_norm/reference.py`."""
    return run("modulated_norm", x, **_modulation(shift, scale))(x, shift, scale, eps)


def add_norm_modulate(
    x: Tensor, branch: Tensor | None, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """x + gate * branch, and its modulated norm: [B, N, D] each; see `modulated_norm/reference.py`."""
    found = run("add_norm_modulate", x, **_modulation(shift, scale))(x, branch, gate, shift, scale, eps)
    return cast(tuple[Tensor, Tensor], found)


def add_norm_modulate_quant(
    x: Tensor, branch: Tensor | None, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float = 1e-6
) -> tuple[Tensor, Tensor | QuantTokens]:
    """As `add_norm_modulate`, with the norm quantised for `int8_matmul` if the row does so on its way."""
    found = run("add_norm_modulate_quant", x, **_modulation(shift, scale))(x, branch, gate, shift, scale, eps)
    return cast(tuple[Tensor, Tensor | QuantTokens], found)


def conv(x: Tensor, weight: Tensor, bias: Tensor | None, act: Act = "none") -> Tensor:
    """Convolution that keeps the size, perhaps a SiLU: [B, C, h, w] -> [B, D, h, w]; see `conv.py`."""
    facts = {"taps": weight.shape[-1], "width": min(weight.shape[:2]), "positions": x.shape[2] * x.shape[3]}
    return run("conv", x, training=needs_grad(x, weight, bias), **facts)(x, weight, bias, act)


def rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """RMS norm over channels, and a sum: [B, C, h, w] -> the same; see `rms_norm/reference.py`."""
    training = needs_grad(x, residual, weight, bias)
    return run("rms_norm", x, training=training)(x, residual, weight, bias, eps)


def int8_matmul(
    x: Tensor | QuantTokens,
    weight: Tensor,
    scales: Tensor,
    bias: Tensor | None,
    act: Act = "none",
    prepared: Tensor | None = None,
) -> Tensor:
    """W8A8 product: x [..., K], int8 weight [O, K], scales [O] -> [..., O]; see `quant_matmul/reference.py`.

    prepared: what `prepare_int8` made of the weight, so that it is not made again at each call.
    """
    quantised = isinstance(x, QuantTokens)
    training = needs_grad(bias if isinstance(x, QuantTokens) else x, bias)
    row = choose(
        "int8_matmul", x, quantised=int(quantised), training=training, prepared=int(prepared is not None)
    )
    layout: tuple[Tensor, ...] = ()
    if row.prepare is not None:
        layout = (row.prepare(weight) if prepared is None else prepared,)
    out: Tensor = row.form()(x, weight, scales, bias, act, *layout)
    return out


def prepare_int8(weight: Tensor, like: Tensor) -> Tensor | None:
    """Lay out an int8 weight [O, K] as the row for tokens such as `like` wants it; None if it wants nothing."""
    row = select("int8_matmul", Problem.of("int8_matmul", like))
    return None if row.prepare is None else row.prepare(weight)


def fp8_matmul(x: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None, act: Act = "none") -> Tensor:
    """Product in fp8: x [..., K], e4m3 weight [O, K], scales [O] -> [..., O]; see `quant_matmul/reference.py`."""
    return run("fp8_matmul", x, training=needs_grad(x, bias))(x, weight, scales, bias, act)


def _modulation(shift: Tensor, scale: Tensor) -> dict[str, int]:
    """Return the facts of a modulation: `shared` by all samples and tokens; `per_token`, one for each token."""
    sizes = (shift.shape[0], scale.shape[0], shift.shape[1], scale.shape[1])
    per_token = max(sizes[2:]) > 1
    return {"shared": 1 if all(size == 1 for size in sizes) else 0, "per_token": 1 if per_token else 0}
