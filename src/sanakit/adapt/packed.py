"""Parts of a model in the form that draws on a CPU: weights laid out for the matrix unit, activations inside products.

Each replaces the part that it is named after (see `pack.py`), keeps no second copy of its weights and has no gradient.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from sanakit.adapt.int8 import Int8Linear
from sanakit.autoencoder.stages import GatedConv
from sanakit.base.sizes import Grid
from sanakit.kernels import depthwise_glu
from sanakit.kernels.choice import Problem, select
from sanakit.kernels.linear import Act
from sanakit.layers.mix_ffn import MixFFN
from sanakit.layers.resample import Upsample

Dense = nn.Linear | nn.Conv2d  # of 1x1
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
        return cls(row.run, prepared, _copy(bias), len(weight), act)

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> [..., O]."""
        return self.run(x, self.prepared, self.bias, self.act)


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
        row = select("upsample_conv", Problem.of("upsample_conv", weight))
        self.run, self.shortcut, self.bias = row.run, up.shortcut, _copy(up.conv.bias)
        self.prepared = weight if row.prepare is None else row.prepare(weight)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, D, 2h, 2w]."""
        return self.run(x, self.prepared, self.bias, self.shortcut)


def _copy(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().clone()
