"""Forward-mode derivatives (`torch.func.jvp`): every row gives the reference's tangent or refuses in words."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from sanakit import kernels
from sanakit.base.errors import ConfigError
from sanakit.kernels import QKNorm, choice, table
from sanakit.kernels.choice import Problem, explain, prepare, select
from sanakit.kernels.linear_attention import reference as attention
from sanakit.kernels.quant_matmul.reference import quantise_rows as to_int8
from sanakit.kernels.quant_matmul.reference import quantise_rows_fp8 as to_fp8

# torch itself scripts its rules for tangents when they are first used.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")

BOUND = 1e-5
REFUSAL = "has no forward-mode derivative"


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape)


def arguments() -> dict[str, tuple[Tensor, tuple[object, ...]]]:
    """Operator -> its first argument, which gets a tangent, and the others."""
    maps, tokens, modulation = numbers(1, 6, 4, 5), numbers(2, 5, 8), numbers(1, 1, 8)
    norm = QKNorm(numbers(8), numbers(8), 1e-5)
    return {
        "linear_attention": (numbers(1, 7, 2, 4), (numbers(1, 7, 2, 4), numbers(1, 7, 2, 4))),
        "qk_norm_linear_attention": (
            numbers(1, 7, 2, 4),
            (numbers(1, 7, 2, 4), numbers(1, 7, 2, 4), 1e-6, None, None, None, norm),
        ),
        "gated_depthwise": (maps, (numbers(6, 1, 3, 3), numbers(6))),
        "depthwise_glu": (maps, (numbers(1, 6, 4, 5), numbers(12, 1, 3, 3), numbers(12))),
        "modulated_norm": (tokens, (modulation, numbers(1, 1, 8))),
        "add_norm_modulate": (tokens, (numbers(2, 5, 8), modulation, modulation, numbers(1, 1, 8))),
        "add_norm_modulate_quant": (tokens, (numbers(2, 5, 8), modulation, modulation, numbers(1, 1, 8))),
        "linear": (tokens, (numbers(3, 8), numbers(3), "silu")),
        "int8_matmul": (tokens, (*to_int8(numbers(16, 8)), numbers(16), "silu")),
        "fp8_matmul": (tokens, (*to_fp8(numbers(16, 8)), numbers(16), "silu")),
        "conv": (maps, (numbers(4, 6, 3, 3), numbers(4), "silu")),
        "rms_norm": (maps, (numbers(1, 6, 4, 5), numbers(6), numbers(6), 1e-5)),
        "upsample_conv": (maps, (numbers(3, 6, 3, 3), numbers(3), False)),
    }


FACTS = {op: {"shared": 1} for op in ("modulated_norm", "add_norm_modulate", "add_norm_modulate_quant")}


def tangent_of(run: Callable[..., object], x: Tensor, rest: tuple[object, ...]) -> Tensor:
    """The derivative of `run` in a direction of its first argument."""
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(7))
    found: Tensor = torch.func.jvp(lambda first: joined(run(first, *rest)), (x,), (direction,))[1]
    return found


def joined(results: object) -> Tensor:
    """The results of an operator, of which some have two, as one tensor."""
    return torch.cat(results) if isinstance(results, tuple) else results


def near(got: Tensor, wanted: Tensor) -> None:
    assert torch.linalg.norm(wanted) > 0.1
    assert torch.linalg.norm(got - wanted) <= BOUND * torch.linalg.norm(wanted)


def test_every_operator_is_tried() -> None:
    assert set(arguments()) == set(choice.operators())


@pytest.mark.parametrize("row", table.TABLE, ids=lambda row: f"{row.op}-{row.name}")
def test_a_row_gives_the_tangent_of_the_reference_or_refuses(row: table.Implementation) -> None:
    x, rest = arguments()[row.op]
    reference = table.rows_of(row.op)[-1]
    with forward_ad.dual_level():
        refusal = row.refusal(Problem.of(row.op, x, **FACTS.get(row.op, {})))
    if refusal is None:
        assert row.forward_ad
        near(tangent_of(lambda *given: row.ready(*given)(), x, rest), tangent_of(reference.run, x, rest))
    else:
        assert row.name != "reference"


@pytest.mark.parametrize("op", sorted(set(arguments()) & set(kernels.__all__)))
def test_an_operator_gives_the_tangent_of_its_reference(triton_everywhere: None, op: str) -> None:
    """Also where Triton's row is the first, which knows nothing of tangents."""
    x, rest = arguments()[op]
    reference = table.rows_of(op)[-1].run
    near(tangent_of(getattr(kernels, op), x, rest), tangent_of(reference, x, rest))
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, x.cos())
        found, wanted = (joined(run(dual, *rest)) for run in (getattr(kernels, op), reference))
        near(forward_ad.unpack_dual(found).tangent, forward_ad.unpack_dual(wanted).tangent)


def test_attention_with_a_norm_gives_the_tangent_of_its_reference(triton_everywhere: None) -> None:
    x, rest = arguments()["qk_norm_linear_attention"]
    wanted = tangent_of(attention.qk_norm_linear_attention, x, rest)
    near(tangent_of(kernels.linear_attention, x, rest), wanted)


def test_a_packed_layer_refuses_instead_of_losing_the_tangent() -> None:
    product = prepare("linear", numbers(16, 8))
    if product.row.forward_ad:
        pytest.skip("no row lays out weights on this CPU")
    with pytest.raises(
        ConfigError, match="prepared for the row onednn, which has no forward-mode derivative"
    ):
        torch.func.jvp(lambda x: product(x, None), (numbers(2, 8),), (numbers(2, 8),))


def test_triton_says_why_and_only_while_tangents_are_asked_for(triton_everywhere: None) -> None:
    x = numbers(1, 7, 2, 4)
    with forward_ad.dual_level():
        assert (
            explain(Problem.of("linear_attention", x))[0] == f"linear_attention: triton: refuses: {REFUSAL}"
        )
    assert select("linear_attention", Problem.of("linear_attention", x)).name == "triton"
