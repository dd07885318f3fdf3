"""`pack`: a loaded model into the form that runs fastest, in place; its parts have no gradient.

On CPUs weights are laid out for the matrix unit and activations computed inside products; everywhere upsampling becomes
four convolutions of the small map. If the table of kernels wants nothing made of weights beforehand, nothing is
replaced, and the report says why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from sanakit.adapt.quantise import RARE, Int8Linear, reason_to_keep
from sanakit.autoencoder.blocks import GatedConv
from sanakit.base.sizes import Grid
from sanakit.kernels import depthwise_glu
from sanakit.kernels.choice import Prepared, Problem, explain, prepare, select
from sanakit.kernels.linear import Act
from sanakit.layers.block import MixFFN
from sanakit.layers.lora import AdaptedLayer
from sanakit.layers.resample import Upsample

SMALLEST = 64
"""Inputs of a linear layer below which it stays as it is."""


@dataclass(frozen=True, kw_only=True)
class PackReport:
    """Names of the modules that `pack` replaced, and the table's lines that decided it."""

    replaced: tuple[str, ...]
    reasons: tuple[str, ...]


def pack(model: nn.Module) -> PackReport:
    """Replace modules that have a packed form, in place: for inference, once the weights are loaded."""
    weight = next(model.parameters())
    ops = ["linear", *("upsample_conv" for module in model.modules() if isinstance(module, Upsample))]
    problems = [Problem.of(op, weight) for op in dict.fromkeys(ops)]
    reasons = tuple(line for problem in problems for line in explain(problem))
    able = {problem.op for problem in problems if select(problem.op, problem).prepare is not None}
    if weight.is_meta or not able:
        return PackReport(replaced=(), reasons=reasons)
    replaced: list[str] = []
    # DoRA reads the weight itself.
    read = [
        name for name, part in model.named_modules() if isinstance(part, AdaptedLayer) and part.reads_weight
    ]
    with torch.no_grad():
        for name, module in list(model.named_modules()):
            inside = name.startswith(tuple(f"{n}." for n in (*replaced, *read)))
            build = None if inside else _packed(name, module, able)
            if build is not None:
                model.set_submodule(name, build())
                replaced.append(name)
    return PackReport(replaced=tuple(replaced), reasons=reasons)


def _packed(name: str, module: nn.Module, able: set[str]) -> Callable[[], nn.Module] | None:
    """Return what builds the packed form of a module, by the operators that have a row for it; None to leave it."""
    if isinstance(module, Upsample):
        return partial(PackedUpsample, module) if "upsample_conv" in able and not module.shuffle else None
    if "linear" not in able:
        return None
    if isinstance(module, MixFFN):
        if any(isinstance(part, AdaptedLayer) for part in module.modules()):
            return None  # what adapters add comes before the activation, so that one can't be in the product
        return partial(PackedMixFFN, module)
    if isinstance(module, GatedConv):
        return partial(PackedGatedConv, module)
    if type(module) is not nn.Linear or module.in_features < SMALLEST or reason_to_keep(name, RARE):
        return None
    return partial(PackedLinear.of, module.weight, module.bias)


Dense = nn.Linear | nn.Conv2d  # of 1x1


class PackedLinear(nn.Module):
    """A linear layer with an optional SiLU behind it, by a row of the table that has laid out the weight."""

    def __init__(self, product: Prepared, bias: Tensor | None, outputs: int, act: Act) -> None:
        super().__init__()
        self.product, self.bias = product, bias
        self.out_features, self.act = outputs, act

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None, act: Act = "none") -> PackedLinear:
        """weight [O, K], bias [O]."""
        return cls(prepare("linear", weight), _copy(bias), len(weight), act)

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> [..., O]."""
        return self.product(x, self.bias, self.act)


class PackedMix(nn.Module):
    """1x1, SiLU, depthwise 3x3, gate, 1x1: value and gate are products of their own, so each leaves it activated."""

    def __init__(self, expand: Dense | Int8Linear, depthwise: nn.Conv2d, project: Dense | Int8Linear) -> None:
        super().__init__()
        self.value, self.gate = _halves(expand)
        self.weight, self.bias = depthwise.weight.detach().clone(), _copy(depthwise.bias)
        self.project = (
            project
            if isinstance(project, Int8Linear)
            else PackedLinear.of(project.weight.flatten(1), project.bias)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, h, w, D] -> [B, h, w, D]."""
        value, gate = (half(x).permute(0, 3, 1, 2) for half in (self.value, self.gate))  # [B, F, h, w]
        out: Tensor = self.project(depthwise_glu(value, gate, self.weight, self.bias).permute(0, 2, 3, 1))
        return out


def _halves(expand: Dense | Int8Linear) -> tuple[nn.Module, nn.Module]:
    """Value and gate, each with its SiLU."""
    if isinstance(expand, Int8Linear):
        return expand.halves("silu")
    biases = (None, None) if expand.bias is None else expand.bias.chunk(2)
    weights = expand.weight.flatten(1).chunk(2)
    return PackedLinear.of(weights[0], biases[0], "silu"), PackedLinear.of(weights[1], biases[1], "silu")


class PackedMixFFN(nn.Module):
    """`MixFFN` of the transformer."""

    def __init__(self, ffn: MixFFN) -> None:
        super().__init__()
        self.mix = PackedMix(ffn.expand, ffn.depthwise, ffn.project)

    def forward(self, x: Tensor, grid: Grid) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        out: Tensor = self.mix(x.reshape(-1, grid.height, grid.width, x.shape[-1]))
        return out.reshape(x.shape)


class PackedGatedConv(nn.Module):
    """`GatedConv` of the autoencoder."""

    def __init__(self, ffn: GatedConv) -> None:
        super().__init__()
        self.mix = PackedMix(ffn.expand, ffn.depthwise, ffn.project)
        self.norm = ffn.norm

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w], the residual included."""
        out: Tensor = self.norm(self.mix(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), residual=x)
        return out


class PackedUpsample(nn.Module):
    """`Upsample` by nearest x2, with its kernel in the form of the table's row."""

    def __init__(self, up: Upsample) -> None:
        super().__init__()
        weight = up.conv.weight.detach()
        self.upsample = prepare("upsample_conv", weight)
        self.bias, self.shortcut = _copy(up.conv.bias), up.shortcut

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, D, 2h, 2w]."""
        return self.upsample(x, self.bias, self.shortcut)


def _copy(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().clone()
