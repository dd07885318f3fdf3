"""W8A8 products on CPUs without int8 units: whole numbers multiplied as float32, at the speed of float32.

Weights stay in int8 between products. Sums of whole numbers are exact up to 2**24 and rounded as float32 above.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.kernels.int8_matmul.product import product
from sanakit.kernels.int8_matmul.reference import token_steps
from sanakit.kernels.linear.reference import Act
from sanakit.kernels.problem import Problem


def refuses(problem: Problem) -> str | None:
    """Why this row does not run a problem; None where it does."""
    if problem.device != "cpu":
        return "runs on CPUs only"
    return "rounds tokens itself" if problem.fact("rounded") else None


def int8_matmul(x: Tensor, weight: Tensor, steps: Tensor, bias: Tensor | None, act: Act = "none") -> Tensor:
    """As the reference: [..., K] -> [..., O]."""
    wide = weight.float()

    def scaled(values: Tensor) -> Tensor:
        return (F.linear(values.float(), wide) * steps).to(x.dtype)

    return product(x, weight, steps, bias, act, scaled, 0)


def traced(x: Tensor, weight: Tensor, steps: Tensor, bias: Tensor | None, act: Act = "none") -> Tensor:
    """The same for torch.compile, which joins what surrounds the product; without a gradient."""
    per_row = token_steps(x)[..., None]
    # What NaN rounds to does not matter: the step of its row is NaN as well.
    out = F.linear((x.float() * per_row.reciprocal()).round(), weight.float()) * steps * per_row
    out = out if bias is None else out + bias
    return (F.silu(out) if act == "silu" else out).to(x.dtype)
