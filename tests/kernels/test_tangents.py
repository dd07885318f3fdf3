"""Forward-mode derivatives (`torch.func.jvp`): every row gives the reference's tangent or refuses in words."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from sanakit import kernels
from sanakit.kernels import QKNorm, choice
from sanakit.kernels.choice import Problem, explain, select
from sanakit.kernels.fp8_matmul import quantise_rows as to_fp8
from sanakit.kernels.int8_matmul import quantise_rows as to_int8

# torch itself scripts its rules for tangents when they are first used.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")

BOUND = 1e-5
REFUSAL = "has no forward-mode derivative"


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape)


def arguments() -> dict[str, tuple[Tensor, tuple[object, ...]]]:
    """Operator -> its first argument, which gets a tangent, and the others."""
    maps, tokens, modulation = numbers(1, 6, 4, 5), numbers(2, 5, 8), numbers(1, 1, 8)
    return {
        "linear_attention": (numbers(1, 7, 2, 4), (numbers(1, 7, 2, 4), numbers(1, 7, 2, 4))),
        "gated_depthwise": (maps, (numbers(6, 1, 3, 3), numbers(6))),
        "depthwise_glu": (maps, (numbers(1, 6, 4, 5), numbers(12, 1, 3, 3), numbers(12))),
        "modulated_norm": (tokens, (modulation, numbers(1, 1, 8))),
        "linear": (tokens, (numbers(3, 8), numbers(3), "silu")),
        "int8_matmul": (tokens, (*to_int8(numbers(16, 8)), numbers(16), "silu")),
        "fp8_matmul": (tokens, (*to_fp8(numbers(16, 8)), numbers(16), "silu")),
        "conv": (maps, (numbers(4, 6, 3, 3), numbers(4), "silu")),
        "rms_norm": (maps, (numbers(1, 6, 4, 5), numbers(6), numbers(6), 1e-5)),
        "upsample_conv": (maps, (numbers(3, 6, 3, 3), numbers(3), False)),
    }


FACTS = {"modulated_norm": {"modulations": 1}}


def tangent_of(run: Callable[..., Tensor], x: Tensor, rest: tuple[object, ...]) -> Tensor:
    """The derivative of `run` in a direction of its first argument."""
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(7))
    found: Tensor = torch.func.jvp(lambda first: run(first, *rest), (x,), (direction,))[1]
    return found


def near(got: Tensor, wanted: Tensor) -> None:
    assert torch.linalg.norm(wanted) > 0.1
    assert torch.linalg.norm(got - wanted) <= BOUND * torch.linalg.norm(wanted)


def test_every_operator_is_tried() -> None:
    assert set(arguments()) == set(choice.operators())


@pytest.mark.parametrize("row", choice.TABLE, ids=lambda row: f"{row.op}-{row.name}")
def test_a_row_gives_the_tangent_of_the_reference_or_refuses(row: choice.Implementation) -> None:
    x, rest = arguments()[row.op]
    reference = choice._rows(row.op)[-1]
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
    reference = choice._rows(op)[-1].run
    near(tangent_of(getattr(kernels, op), x, rest), tangent_of(reference, x, rest))
    with forward_ad.dual_level():
        dual = getattr(kernels, op)(forward_ad.make_dual(x, x.cos()), *rest)
        found = forward_ad.unpack_dual(dual).tangent
        dual = reference(forward_ad.make_dual(x, x.cos()), *rest)
        near(found, forward_ad.unpack_dual(dual).tangent)


def test_fused_forms_give_the_tangent_of_their_parts(triton_everywhere: None) -> None:
    q, weight = numbers(1, 7, 2, 4), numbers(8)
    x, m, norm = numbers(2, 5, 8), numbers(1, 1, 8), QKNorm(weight, weight, 1e-5)

    def attend(x: Tensor) -> Tensor:
        return kernels.linear_attention(x, q, q, norm=norm)

    def enter(x: Tensor) -> Tensor:
        return torch.cat(kernels.add_norm_modulate(x, x, m, m, m))

    def enter_int8(x: Tensor) -> Tensor:
        total, normal = kernels.add_norm_modulate_quant(x, x, m, m, m)
        assert isinstance(normal, Tensor)
        return torch.cat((total, normal))

    for run, given in ((attend, q), (enter, x), (enter_int8, x)):
        found = tangent_of(run, given, ())
        with choice.avoid("triton"):
            near(found, tangent_of(run, given, ()))


def test_triton_says_why_and_only_while_tangents_are_asked_for(triton_everywhere: None) -> None:
    x = numbers(1, 7, 2, 4)
    with forward_ad.dual_level():
        assert (
            explain(Problem.of("linear_attention", x))[0] == f"linear_attention: triton: refuses: {REFUSAL}"
        )
    assert select("linear_attention", Problem.of("linear_attention", x)).name == "triton"
