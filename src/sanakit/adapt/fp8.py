"""fp8: the wide linear layers of a built transformer in e4m3, in place, for chips that multiply it."""

from __future__ import annotations

from torch import Tensor, nn

from sanakit.adapt.int8 import KEPT, QuantReport, quantise
from sanakit.adapt.quant_linear import QuantLinear
from sanakit.kernels import fp8_matmul
from sanakit.kernels.fp8_matmul import quantise_rows

_MULTIPLE = 16  # of the scaled matmul's inputs and outputs


class Fp8Linear(QuantLinear):
    """With weights in e4m3."""

    @classmethod
    def of(cls, linear: nn.Linear) -> Fp8Linear:
        """A linear layer, rounded."""
        weight, steps = quantise_rows(linear.weight.detach())
        return cls(weight, steps, linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> [..., O] in the dtype of x."""
        return fp8_matmul(x, self.weight, self.steps, self.bias, self.act)


def to_fp8(model: nn.Module, kept: dict[str, str] = KEPT) -> QuantReport:
    """Replace the wide linear layers of `model` by fp8 ones, in place; the same ones as for int8."""
    return quantise(model, kept, build=Fp8Linear.of, multiple=_MULTIPLE)
