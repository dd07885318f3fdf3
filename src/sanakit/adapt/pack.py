"""`pack`: a loaded model into the form that draws fastest, in place.

Where the table of kernels wants nothing made of weights beforehand, nothing is replaced, and the report says why. On
CPUs products are packed, and everywhere upsampling is, which becomes four convolutions of the small map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from sanakit.adapt.packed import PackedGatedConv, PackedLinear, PackedMixFFN, PackedUpsample
from sanakit.adapt.select import RARE, reason_to_keep
from sanakit.autoencoder.stages import GatedConv
from sanakit.kernels.choice import Problem, explain, select
from sanakit.layers.mix_ffn import MixFFN
from sanakit.layers.resample import Upsample

SMALLEST = 64
"""Inputs of a linear layer below which it stays as it is."""


@dataclass(frozen=True, kw_only=True)
class PackReport:
    """Names of the modules that `pack` replaced, and the table's lines that decided it."""

    replaced: tuple[str, ...]
    reasons: tuple[str, ...]


def pack(model: nn.Module) -> PackReport:
    """Replace what there is a packed form of, in place: for drawing, once the weights are loaded."""
    weight = next(model.parameters())
    ops = ["linear", *("upsample_conv" for module in model.modules() if isinstance(module, Upsample))]
    problems = [Problem.of(op, weight) for op in dict.fromkeys(ops)]
    reasons = tuple(line for problem in problems for line in explain(problem))
    able = {problem.op for problem in problems if select(problem.op, problem).prepare is not None}
    if weight.is_meta or not able:
        return PackReport(replaced=(), reasons=reasons)
    replaced: list[str] = []
    with torch.no_grad():
        for name, module in list(model.named_modules()):
            build = None if name.startswith(tuple(f"{n}." for n in replaced)) else _packed(name, module, able)
            if build is not None:
                model.set_submodule(name, build())
                replaced.append(name)
    return PackReport(replaced=tuple(replaced), reasons=reasons)


def _packed(name: str, module: nn.Module, able: set[str]) -> Callable[[], nn.Module] | None:
    """What builds the packed form of a module, by the operators that have a row for it; None where it stays."""
    if isinstance(module, Upsample):
        return partial(PackedUpsample, module) if "upsample_conv" in able and not module.shuffle else None
    if "linear" not in able:
        return None
    if isinstance(module, MixFFN):
        return partial(PackedMixFFN, module)
    if isinstance(module, GatedConv):
        return partial(PackedGatedConv, module)
    if type(module) is not nn.Linear or module.in_features < SMALLEST or reason_to_keep(name, RARE):
        return None
    return partial(PackedLinear.of, module.weight, module.bias)
