"""W8A8 products: the rounding, the reference against float64, and oneDNN against the reference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sanakit.base.chip import Chip, this_chip
from sanakit.kernels import choice, int8_matmul, prepare_int8, table
from sanakit.kernels.choice import Problem
from sanakit.kernels.linear import unsupported_chip
from sanakit.kernels.quant_matmul import cpu, reference
from sanakit.kernels.quant_matmul.cpu import whole
from sanakit.kernels.quant_matmul.reference import quantise_rows, quantise_tokens
from tests.oracles import chips

SIZES = [((1, 1), 1), ((3, 5), 7), ((2, 33, 65), 130), ((4, 1152), 33)]
CPU = Problem("int8_matmul", "cpu", torch.float32)
BY_ONEDNN = [
    row.name
    for row in table.TABLE
    if row.op == "int8_matmul" and row.name.startswith("onednn") and row.refusal(CPU) is None
]
"""Rows with int8 units, of which this machine may have none; the arithmetic of both is tested everywhere below."""
ROWS = [*BY_ONEDNN, "float32", "reference"]


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN's operators by their definition, exactly: sums of int32 over values less their zero point."""

    class Operators:
        @staticmethod
        def qlinear_prepack(weight: Tensor, shape: None) -> Tensor:
            return weight.t().contiguous()

        @staticmethod
        def qlinear_pointwise(
            x: Tensor, scale: float, zero: int, packed: Tensor, scales: Tensor, zeros: Tensor, bias: None,
            out_scale: float, out_zero: int, dtype: torch.dtype, act: str, *rest: object,
        ) -> Tensor:  # fmt: skip
            assert (scale, bias, out_scale, out_zero, act) == (1.0, None, 1.0, 0, "none")
            assert not zeros.any()
            assert x.dtype == (torch.uint8 if zero else torch.int8)
            return ((x.long() - zero) @ packed.long() * scales.double()).to(dtype)

    monkeypatch.setattr(torch.ops, "onednn", Operators)


def layer(inputs: int, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    weight, scales = quantise_rows(torch.randn(outputs, inputs))
    return weight, scales, torch.randn(outputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_are_rounded_to_the_nearest_of_their_own_steps(dtype: torch.dtype) -> None:
    x = (torch.randn(4, 7, 33) * torch.logspace(-3, 3, 7)[:, None]).to(dtype)
    values, scales = quantise_rows(x)
    assert values.dtype == torch.int8
    assert values.shape == x.shape
    assert (values.abs().amax(-1) == 127).all()
    error = (values.double() * scales.double()[..., None] - x.double()).abs()
    assert (error <= scales.double()[..., None] * (0.5 + 1e-5)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_steps_of_tokens_are_numbers_of_bf16_that_hold_every_value(dtype: torch.dtype) -> None:
    x = (torch.randn(4, 50, 33) * torch.logspace(-3, 3, 50)[:, None]).to(dtype)
    values, scales = quantise_tokens(x)
    exact = x.double().abs().amax(-1) / 127
    assert torch.equal(scales.bfloat16().float(), scales)
    assert (scales >= exact).all()
    assert (scales <= exact * (1 + 2**-7 + 1e-6)).all()
    error = (values.double() * scales.double()[..., None] - x.double()).abs()
    assert (error <= scales.double()[..., None] * (0.5 + 1e-5)).all()


@pytest.mark.parametrize("act", ["none", "silu"])
@pytest.mark.parametrize("shift", [0, cpu.SHIFT])
def test_what_the_compiler_is_given_equals_the_reference(exact: None, act: str, shift: int) -> None:
    weight, scales, bias = layer(70, 37)
    for x in (torch.randn(2, 9, 70), torch.randn(5, 70).bfloat16()):
        got = cpu.int8_matmul_traced(x, weight, scales, bias.to(x.dtype), act, cpu.pack(weight), shift)
        wanted = reference.int8_matmul(x, weight, scales, bias.to(x.dtype), act)
        assert got.dtype == x.dtype
        rounding = 1e-6 if x.dtype == torch.float32 else 2**-6  # sums and result are rounded
        torch.testing.assert_close(got, wanted, rtol=rounding, atol=rounding)


def test_rows_of_zeros_stay_zero_and_broken_rows_show() -> None:
    x = torch.zeros(4, 8)
    x[1, 3], x[2, 3] = float("nan"), float("inf")
    values, scales = quantise_rows(x)
    assert values[0].eq(0).all()
    assert scales[[0, 3]].gt(0).all()
    out = reference.int8_matmul(x, *layer(8, 5))
    assert out[[0, 3]].isfinite().all()
    assert not out[1].isfinite().any()
    assert not out[2].isfinite().any()


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize(("shape", "outputs"), SIZES)
@pytest.mark.parametrize("has_bias", [True, False])
def test_values_and_gradients(row: str, shape: tuple[int, ...], outputs: int, has_bias: bool) -> None:
    """Sums over whole numbers are exact, so only the last roundings differ from float64."""
    weight, scales, bias = layer(shape[-1], outputs)
    x, bias = torch.randn(shape, requires_grad=True), bias.requires_grad_() if has_bias else None
    values, per_row = quantise_tokens(x.detach())
    wide = (values.double() @ weight.double().T) * per_row.double()[..., None] * scales.double()
    wanted = wide if bias is None else wide + bias.double()
    with choice.force("int8_matmul", row):
        got = int8_matmul(x, weight, scales, bias)
    torch.testing.assert_close(got.double(), wanted, rtol=1e-6, atol=1e-5)
    down = torch.randn(got.shape)
    got.backward(down)
    torch.testing.assert_close(
        x.grad.double(), down.double() @ (weight.double() * scales.double()[:, None]), rtol=1e-5, atol=1e-4
    )
    if bias is not None:
        torch.testing.assert_close(bias.grad, down.flatten(0, -2).sum(0), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("row", ROWS)
def test_broken_tokens_break_their_own_row_alone(row: str) -> None:
    weight, scales, bias = layer(64, 9)
    x = torch.randn(3, 64)
    whole = int8_matmul(x, weight, scales, bias)
    x[1, 5] = float("nan")
    with choice.force("int8_matmul", row):
        got = int8_matmul(x, weight, scales, bias)
    assert not got[1].isfinite().any()
    torch.testing.assert_close(got[[0, 2]], whole[[0, 2]], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("row", ROWS)
def test_what_was_prepared_is_used(row: str) -> None:
    weight, scales, bias = layer(64, 9)
    x = torch.randn(3, 64).bfloat16()
    with choice.force("int8_matmul", row):
        prepared = prepare_int8(weight, x)
        assert (prepared is None) == (row in ("float32", "reference"))
        got = int8_matmul(x, weight, scales, bias, prepared=prepared)
        assert got.dtype == torch.bfloat16
        assert torch.equal(got, int8_matmul(x, weight, scales, bias))


@pytest.mark.parametrize("run", [cpu.int8_matmul, cpu.int8_matmul_shifted])
@pytest.mark.parametrize(("shape", "outputs"), [*SIZES, ((0, 5), 3), ((513, 7), 2)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_signed_and_shifted_tokens_give_the_same_sums(
    exact: None, run: Callable[..., Tensor], shape: tuple[int, ...], outputs: int, has_bias: bool
) -> None:
    """Rows of zeros (all 128 once shifted), both ends of the range, odd sizes: as the reference."""
    weight, scales, bias = layer(shape[-1], outputs)
    x = torch.randn(shape)
    if x.numel():
        x.view(-1, shape[-1])[0] = 0
        x.view(-1, shape[-1])[-1] = -1
    given = bias if has_bias else None
    got = run(x, weight, scales, given, "none", cpu.pack(weight))
    torch.testing.assert_close(got, reference.int8_matmul(x, weight, scales, given), rtol=2e-6, atol=1e-6)


def test_shifted_values_are_the_signed_ones() -> None:
    values = torch.arange(-127, 128).float()
    assert whole(values.clone(), 0).tolist() == list(range(-127, 128))
    assert whole(values.clone(), cpu.SHIFT).tolist() == list(range(1, 256))


@pytest.mark.skipif(unsupported_chip(this_chip()) is not None, reason="no oneDNN for x86 here")
@pytest.mark.parametrize(
    ("tokens", "inputs", "outputs"), [(1, 1, 1), (3, 5, 7), (66, 65, 130), (5, 1152, 33)]
)
@pytest.mark.parametrize("shift", [0, cpu.SHIFT])
def test_the_operators_of_onednn_take_the_shift_away_exactly(
    tokens: int, inputs: int, outputs: int, shift: int
) -> None:
    """On any chip: weights of 6 bits keep pairs of products within int16, where older units overflow."""
    values = torch.randint(-127, 128, (tokens, inputs), dtype=torch.int16)
    weight = torch.randint(-63, 64, (outputs, inputs), dtype=torch.int8)
    given = (values + shift).to(torch.uint8 if shift else torch.int8)
    none = torch.zeros(outputs, dtype=torch.int32)
    got = cpu.multiply(given, cpu.pack(weight), torch.ones(outputs), none, torch.float32)
    assert torch.equal(got.long(), values.long() @ weight.long().t())


@pytest.mark.parametrize(
    ("chip", "words", "shifted"),
    [
        (chips.AVX2, "no int8 products", "no int8 products"),
        (chips.VNNI, "this CPU has AVX512-VNNI", None),
        (chips.CLIENT, "this CPU has AVX-VNNI", None),
        (chips.AMX, None, None),
        (chips.AMX_FORBIDDEN, "may use no more", None),
        (chips.ARM, "packs for x86, and this CPU is aarch64", "packs for x86"),
        (chips.SWITCHED_OFF, "switched off", "switched off"),
    ],
)
def test_which_chip_multiplies_which_tokens(
    monkeypatch: pytest.MonkeyPatch, chip: Chip, words: str | None, shifted: str | None
) -> None:
    with chips.on(monkeypatch, chip):
        for found, wanted in ((cpu.unsupported_signed(CPU), words), (cpu.unsupported_shifted(CPU), shifted)):
            assert found is None if wanted is None else wanted in str(found)


@pytest.mark.parametrize("unsupported", [cpu.unsupported_signed, cpu.unsupported_shifted])
def test_refusals_are_sentences(unsupported: Callable[[Problem], str | None]) -> None:
    assert unsupported(Problem("int8_matmul", "cuda", torch.float16)) == "runs on CPUs only"
    assert (
        unsupported(Problem("int8_matmul", "cpu", torch.float32, (("quantised", 1),)))
        == "rounds tokens itself"
    )


def test_without_units_a_compiler_is_given_float32() -> None:
    weight, scales, bias = layer(70, 37)
    x = torch.randn(2, 9, 70)
    wanted = reference.int8_matmul(x, weight, scales, bias, "silu")
    torch.testing.assert_close(
        cpu.int8_matmul_float32_traced(x, weight, scales, bias, "silu"), wanted, rtol=1e-5, atol=1e-5
    )


def test_the_error_against_the_unrounded_product_is_small() -> None:
    x, weight = torch.randn(64, 1152), torch.randn(300, 1152)
    rounded, scales = quantise_rows(weight)
    wanted = x @ weight.T
    error = torch.linalg.norm(int8_matmul(x, rounded, scales, None) - wanted) / torch.linalg.norm(wanted)
    assert 0.002 < error < 0.02


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [1, 511, 1025])
def test_many_tokens_and_an_activation(row: str, dtype: torch.dtype, tokens: int) -> None:
    """More rows than are taken at a time, drawing only: as the reference, up to the rounding of the dtype."""
    weight, scales, bias = layer(40, 24)
    x, bias = torch.randn(tokens, 40).to(dtype), bias.to(dtype)
    wanted = reference.int8_matmul(x.float(), weight, scales, bias.float(), "silu").double()
    with torch.no_grad(), choice.force("int8_matmul", row):
        got = int8_matmul(x, weight, scales, bias, "silu")
    assert got.dtype == dtype
    bound = 1e-5 if dtype == torch.float32 else 1e-2
    assert torch.linalg.norm(got.double() - wanted) <= bound * torch.linalg.norm(wanted)
