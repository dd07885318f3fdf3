"""The form a built model takes to draw on a CPU: weights laid out for the matrix unit, activations inside products.

`pack` replaces linear layers and Mix-FFNs in place, once the weights are loaded. What it replaces keeps no second copy
of its weights and has no gradient: it is for drawing. Where the table of kernels knows nothing faster than plain torch,
nothing is replaced, and the report says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from sanakit.adapt.select import RARE, reason_to_keep
from sanakit.base.grid import Grid
from sanakit.kernels import depthwise_glu
from sanakit.kernels.choice import Problem, explain, select
from sanakit.kernels.linear import Act
from sanakit.layers.mix_ffn import MixFFN

Product = Callable[[Tensor, Tensor, Tensor | None, Act], Tensor]


class PackedLinear(nn.Module):
    """A linear layer, and perhaps a SiLU behind it, by a row of the table; `prepared` is what that row asked for."""

    def __init__(self, run: Product, prepared: Tensor, bias: Tensor | None, outputs: int, act: Act) -> None:
        super().__init__()
        self.run, self.prepared, self.bias = run, prepared, bias
        self.out_features, self.act = outputs, act

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None, act: Act = "none") -> PackedLinear:
        """weight [O, K], bias [O]."""
        row = select("linear", Problem.of("linear", weight))
        prepared = weight.detach() if row.prepare is None else row.prepare(weight.detach())
        return cls(row.run, prepared, None if bias is None else bias.detach().clone(), len(weight), act)

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> [..., O]."""
        return self.run(x, self.prepared, self.bias, self.act)


class PackedMixFFN(nn.Module):
    """The Mix-FFN with value and gate as two products, so that each leaves its own with the SiLU done."""

    def __init__(self, ffn: MixFFN) -> None:
        super().__init__()
        self.value, self.gate = _halves(ffn.expand)
        self.project = PackedLinear.of(ffn.project.weight, None)
        self.weight = ffn.depthwise.weight.detach().clone()
        self.bias = None if ffn.depthwise.bias is None else ffn.depthwise.bias.detach().clone()

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """As `MixFFN`: [B, N, D] -> [B, N, D]."""
        value, gate = (_as_map(half(x), grid) for half in (self.value, self.gate))  # [B*F, F, h, w]
        mixed = depthwise_glu(value, gate, self.weight, self.bias)
        out: Tensor = self.project(mixed.permute(0, 2, 3, 1).reshape(*x.shape[:2], -1))
        return out


def _halves(expand: nn.Linear) -> tuple[PackedLinear, PackedLinear]:
    biases = (None, None) if expand.bias is None else expand.bias.chunk(2)
    value, gate = (
        PackedLinear.of(weight, bias, "silu")
        for weight, bias in zip(expand.weight.chunk(2), biases, strict=True)
    )
    return value, gate


def _as_map(x: Tensor, grid: Grid) -> Tensor:
    """[B, N, F] -> [B*frames, F, h, w], channels last, without a copy."""
    return x.reshape(-1, grid.height, grid.width, x.shape[-1]).permute(0, 3, 1, 2)


@dataclass(frozen=True, kw_only=True)
class PackReport:
    """Names of the modules that `pack` replaced, and the table's lines that decided it."""

    replaced: tuple[str, ...]
    reasons: tuple[str, ...]


def pack(model: nn.Module, smallest: int = 64) -> PackReport:
    """Replace the linear layers and Mix-FFNs of a loaded model, in place, where the table has more than plain torch.

    smallest: inputs of a linear layer below which it stays as it is.
    """
    weight = next(model.parameters())
    problem = Problem.of("linear", weight)
    reasons = tuple(explain(problem))
    if weight.is_meta or select("linear", problem).prepare is None:
        return PackReport(replaced=(), reasons=reasons)
    replaced = []
    for name, build in list(_replacements(model, smallest)):
        with torch.no_grad():
            model.set_submodule(name, build())
        replaced.append(name)
    return PackReport(replaced=tuple(replaced), reasons=reasons)


def _replacements(model: nn.Module, smallest: int) -> list[tuple[str, Callable[[], nn.Module]]]:
    """(name, builder) of what is replaced; parts of a module that is replaced whole are left out."""
    found: list[tuple[str, Callable[[], nn.Module]]] = []
    taken: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if isinstance(module, MixFFN):
            found.append((name, partial(PackedMixFFN, module)))
            taken = (*taken, f"{name}.")
        elif type(module) is not nn.Linear or name.startswith(taken) or reason_to_keep(name, RARE):
            continue
        elif module.in_features >= smallest:
            found.append((name, partial(PackedLinear.of, module.weight, module.bias)))
    return found
