"""Quantisation: the wide linear layers of a built model in int8 (W8A8) or fp8 (e4m3), in place.

Which layers stay as they are is data, with a reason each. Weights are quantised once, activations at every product, by
the tokens at hand, so nothing is calibrated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from sanakit.base.errors import WeightsError
from sanakit.kernels import QuantTokens, add_norm_modulate_quant, fp8_matmul, int8_matmul, prepare_int8
from sanakit.kernels.linear import Act
from sanakit.kernels.quant_matmul.reference import quantise_rows, quantise_rows_fp8
from sanakit.layers import AdaLN, LinearBlock, LinearSelfAttention, MixFFN, Modulation

_ONE_ROW = "one row per step: nothing to gain, and every block reads it"

RARE: dict[str, str] = {
    "time.*": _ONE_ROW,
    "guidance.*": _ONE_ROW,
    "modulation": _ONE_ROW,
    "text.*": "runs once per picture",
}
"""Layers of the transformer that hardly run (`*` for any part of a name), and how often they do."""

KEPT: dict[str, str] = {
    **RARE,
    "*.cross.kv": "runs once per picture",
    "*.cross.q": "reads tokens before any norm: with cross.out as much error as all else, and no time saved",
    "*.cross.out": "as cross.q",
    "head.out": "its error goes straight into the output",
    "outputs.*": "of a ControlNet: its error goes straight into the tokens of the base",
    "input": "of a ControlNet: as outputs",
}
"""Names of layers of the transformer (`*` for any) that are not quantised, and why."""

SMALLEST = 256
"""Inputs of a layer below which a product in int8 saves less than its rounding costs."""

_MULTIPLE = 16  # of the scaled matmul's inputs and outputs


class QuantLinear(nn.Module):
    """A linear layer with quantised weights [O, K] and a scale per output; it quantises its activations.

    act: applied to the output, "silu" or "none".
    """

    weight: Tensor
    scales: Tensor

    def __init__(
        self, weight: Tensor, scales: Tensor, bias: nn.Parameter | Tensor | None, act: Act = "none"
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("scales", scales)
        self.bias, self.act = bias, act

    @property
    def out_features(self) -> int:
        """Number of outputs O."""
        return len(self.weight)


class Int8Linear(QuantLinear):
    """A linear layer with weights in int8."""

    def __init__(
        self, weight: Tensor, scales: Tensor, bias: nn.Parameter | Tensor | None, act: Act = "none"
    ) -> None:
        super().__init__(weight, scales, bias, act)
        self._prepared: dict[torch.dtype, Tensor | None] = {}

    @classmethod
    def of(cls, linear: nn.Linear) -> Int8Linear:
        """Quantise a linear layer."""
        weight, scales = quantise_rows(linear.weight.detach())
        return cls(weight, scales, linear.bias)

    def forward(self, x: Tensor | QuantTokens) -> Tensor:
        """[..., K], quantised already or not -> [..., O] in the dtype of x."""
        if isinstance(x, QuantTokens):
            return int8_matmul(x, self.weight, self.scales, self.bias, self.act)
        if x.dtype not in self._prepared:
            self.prepare(x.dtype)
        return int8_matmul(x, self.weight, self.scales, self.bias, self.act, self._prepared[x.dtype])

    def prepare(self, dtype: torch.dtype) -> None:
        """Lay the weight out for the row that multiplies tokens of a dtype, so that the first product need not."""
        like = torch.empty(0, dtype=dtype, device=self.weight.device)
        self._prepared[dtype] = prepare_int8(self.weight, like)

    def halves(self, act: Act) -> tuple[Int8Linear, Int8Linear]:
        """Return the first and the second half of the outputs as layers, each with an activation."""
        biases = (None, None) if self.bias is None else self.bias.detach().chunk(2)
        first, second = (
            Int8Linear(weight, scales, bias, act)
            for weight, scales, bias in zip(self.weight.chunk(2), self.scales.chunk(2), biases, strict=True)
        )
        return first, second


class Fp8Linear(QuantLinear):
    """A linear layer with weights in e4m3."""

    @classmethod
    def of(cls, linear: nn.Linear) -> Fp8Linear:
        """Quantise a linear layer."""
        weight, scales = quantise_rows_fp8(linear.weight.detach())
        return cls(weight, scales, linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., K] -> [..., O] in the dtype of x."""
        return fp8_matmul(x, self.weight, self.scales, self.bias, self.act)


def expect_int8(model: nn.Module, names: Iterable[str]) -> None:
    """Replace the linear layers `names` of a model on the meta device by int8 ones, in place, to be loaded.

    Raises WeightsError if a name isn't a linear layer of the model.
    """
    linears = dict(_linears(model))
    for name in names:
        if name not in linears:
            raise WeightsError(f"the weights have {name!r} in int8, which isn't a linear layer of this model")
        weight = torch.empty_like(linears[name].weight, dtype=torch.int8)
        scales = torch.empty(len(weight), dtype=torch.float32, device=weight.device)
        model.set_submodule(name, Int8Linear(weight, scales, linears[name].bias))


@dataclass(frozen=True, kw_only=True)
class QuantReport:
    """Names of the layers that `quantise` replaced, and name -> reason for those it left."""

    replaced: tuple[str, ...]
    kept: dict[str, str]


def quantise(
    model: nn.Module,
    kept: dict[str, str] = KEPT,
    smallest: int = SMALLEST,
    build: Callable[[nn.Linear], nn.Module] = Int8Linear.of,
    multiple: int = 1,
) -> QuantReport:
    """Replace the linear layers of `model` by quantised ones, in place, except those that `kept` names.

    smallest: inputs below which a layer stays. build: quantises a layer. multiple: must divide its inputs and outputs.
    """
    replaced: list[str] = []
    left: dict[str, str] = {}
    for name, linear in list(_linears(model)):
        reason = reason_to_keep(name, kept)
        if reason is None and linear.in_features < smallest:
            reason = f"{linear.in_features} inputs: rounding them costs more than the product saves"
        if linear.in_features % multiple or linear.out_features % multiple:
            reason = reason or f"{linear.in_features} x {linear.out_features}: no multiples of {multiple}"
        if reason is not None:
            left[name] = reason
            continue
        model.set_submodule(name, build(linear))
        replaced.append(name)
    return QuantReport(replaced=tuple(replaced), kept=left)


def to_fp8(model: nn.Module, kept: dict[str, str] = KEPT) -> QuantReport:
    """Replace the wide linear layers of `model` by fp8 ones, in place; the same ones as for int8."""
    return quantise(model, kept, build=Fp8Linear.of, multiple=_MULTIPLE)


def reason_to_keep(name: str, kept: dict[str, str]) -> str | None:
    """Return why the layer `name` stays, by the first pattern that matches; None if none does."""
    name = name.removesuffix(".base")  # of a layer with adapters beside it (`adapt.lora`)
    return next((why for pattern, why in kept.items() if fnmatchcase(name, pattern)), None)


class QuantAdaLN(AdaLN):
    """`AdaLN` for an int8 layer: the norm is quantised if a row of the table does both at once."""

    def forward(
        self, x: Tensor, modulation: Modulation, branch: Tensor | None = None
    ) -> tuple[Tensor, Tensor | QuantTokens]:
        """[B, N, D] -> x + branch, and its norm, scaled, shifted and, if a row does that, quantised."""
        return add_norm_modulate_quant(x, branch, None, modulation.shift, modulation.scale, self.eps)


def fuse_quantisation(model: nn.Module) -> None:
    """Let the norms of blocks quantise for the int8 layers that read them, in place, if the table has such a row."""
    for block in model.modules():
        if not isinstance(block, LinearBlock):
            continue
        if isinstance(block.attention, LinearSelfAttention) and _is_int8(block.attention.qkv):
            block.norm_attention = QuantAdaLN(block.norm_attention.eps)
        if isinstance(block.ffn, MixFFN) and _is_int8(block.ffn.expand):
            block.norm_ffn = QuantAdaLN(block.norm_ffn.eps)


def prepare_layers(model: nn.Module) -> None:
    """Prepare the int8 layers of a model for tokens in the dtype of its other weights, in place.

    Before it is compiled: a compiler that traces the choice of a row would take it apart.
    """
    dtype = next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), torch.float32)
    for layer in model.modules():
        if isinstance(layer, Int8Linear):
            layer.prepare(dtype)


def _is_int8(layer: nn.Module) -> bool:
    return isinstance(layer, Int8Linear)


def _linears(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            yield name, module
