"""CAME: Adafactor's memory, with steps shortened where they disagree with their mean (arXiv 2307.02047, algorithm 2).

A matrix [R, C] keeps its first moment, and of its second moment and of its confidence only the means of rows and
columns: 4 bytes per value where Adam keeps 8. There is no bias correction; the RMS of a step is held below a threshold.
With `block` the first moment of large matrices is kept in bytes: about 1 byte per value.

CAME-8bit keeps signed bytes with one scale per block of a row. A block is `block` neighbouring values, so codes and
scales are cut where a matrix is cut into rows, and a run on one GPU keeps the same numbers as one on many. (The
published CAME-8bit means 2,048 values and takes 2,048 rows: one scale for millions of values. Of a heavy-tailed moment,
Student's t with 3 degrees of freedom, it loses 21 %.)

Codes are symmetric, so zero is exact, and they are rounded to the nearest. A moving average of noise with blocks of 256
then differs from the exact one by 1.6 % (Gaussian) or 2.7 % (Student's t); rounding up or down by chance, which
is right on average, gives 2.3 % and 4.0 %: the noise of the gradient is dither enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.optim import Optimizer

from sanakit.base.errors import WeightsError
from sanakit.training.optim.layout import Layout, layout_of

_LARGEST = 127  # of a signed byte
SMALL = 16_384
"""Tensors of this many values or fewer keep everything in float32."""


class CAME(Optimizer):
    """Confidence-guided adaptive memory-efficient optimiser; the defaults are the published ones.

    Convolutions are read as SANA's training reads them: 1x1 as matrices; depthwise, like biases and norms, in full: a
    plain second moment and no confidence. Dense k x k, which the transformers have none of, are matrices [O, I*k*k].

    Works on parameters that FSDP2 cut into rows: the means over columns, and the RMS, are those of the whole matrix.

    Args:
        params: parameters or groups.
        lr: learning rate.
        betas: decay of the first moment, of the second, and of the confidence.
        eps: added to the squared gradient and to the squared deviation.
        weight_decay: decoupled, times the learning rate.
        clip_threshold: the largest RMS of a normalised gradient, over one tensor.
        block: values per scale of an 8-bit first moment; None keeps float32.
        last_axes: factor over the last two axes, whatever they mean, as the package came-pytorch does: a 3x3
            depthwise convolution is then many 3x3 matrices, which costs more memory than it saves.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-4,
        betas: tuple[float, float, float] = (0.9, 0.999, 0.9999),
        eps: tuple[float, float] = (1e-30, 1e-16),
        weight_decay: float = 0.0,
        clip_threshold: float = 1.0,
        block: int | None = None,
        last_axes: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(
            params, {**defaults, "clip_threshold": clip_threshold, "block": block, "last_axes": last_axes}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)
        return loss

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        layout = layout_of(parameter)
        if not self.state[parameter]:
            self.state[parameter] = fresh_state(parameter, layout, group["block"], group["last_axes"])
        weight = layout.local(parameter)
        grad = layout.local(parameter.grad).float()
        state = {name: layout.local(kept) for name, kept in self.state[parameter].items()}
        shape = seen_as(parameter.shape, group["last_axes"])
        if shape is not None:
            grad = grad.reshape(weight.shape[0], *shape[1:])
        update = _update(grad, state, group, layout, parameter.shape, shape)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.sub_((group["lr"] * update).reshape(weight.shape))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but every tensor keeps the dtype that it was saved in: torch would make floats of bytes.

        Raises WeightsError if the state is another optimiser's.
        """
        saved = self._matched(state_dict)
        super().load_state_dict(state_dict)
        for parameter, state in saved:
            self.state[parameter] = {
                name: kept.to(parameter.device, copy=True) for name, kept in state.items()
            }

    def _matched(self, state_dict: dict[str, Any]) -> list[tuple[Tensor, dict[str, Tensor]]]:
        """Return the saved state of every parameter that has one; refused if it is another optimiser's."""
        numbers = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        own = ((parameter, group) for group in self.param_groups for parameter in group["params"])
        matched = []
        for number, (parameter, group) in zip(numbers, own, strict=False):  # torch refuses other counts
            saved = state_dict["state"].get(number)
            wanted = state_names(parameter.shape, group["block"], group["last_axes"])
            if saved and set(saved) != set(wanted):
                raise WeightsError(
                    f"the saved state is of another optimiser: it holds {sorted(saved)} where {sorted(wanted)} are "
                    "wanted; train on with the one it was saved by"
                )
            matched += [(parameter, saved)] if saved else []
        return matched


def seen_as(shape: torch.Size, last_axes: bool = False) -> tuple[int, ...] | None:
    """Return the matrix [R, C] (or stack [..., R, C]) as which a tensor is factored; None if it is kept in full."""
    if len(shape) < 2:
        return None
    if last_axes:
        return tuple(shape)
    depthwise = len(shape) > 2 and shape[1] == 1
    return None if depthwise else (shape[0], shape[1:].numel())


def state_names(shape: torch.Size, block: int | None, last_axes: bool = False) -> tuple[str, ...]:
    """Return what is kept of a tensor, by the names of came-pytorch and, in bytes, two more."""
    seen = seen_as(shape, last_axes)
    if seen is None:
        return ("exp_avg", "exp_avg_sq")
    packed = block is not None and len(seen) == 2 and shape.numel() > SMALL
    first = ("exp_avg_codes", "exp_avg_scales") if packed else ("exp_avg",)
    return (*first, "exp_avg_sq_row", "exp_avg_sq_col", "exp_avg_res_row", "exp_avg_res_col")


def fresh_state(
    parameter: Tensor, layout: Layout, block: int | None, last_axes: bool = False
) -> dict[str, Tensor]:
    """Zeros to start from, float32 and int8, cut into rows as the parameter is."""
    whole, own = parameter.shape, layout.local(parameter).shape
    seen = seen_as(whole, last_axes) or tuple(whole)
    part = (*own[:1], *seen[1:])
    shapes = {
        "exp_avg": tuple(own),
        "exp_avg_codes": part,
        "exp_avg_scales": (*part[:1], -(-part[-1] // (block or 1)) if part else 1),
        "exp_avg_sq": tuple(own),
        "exp_avg_sq_row": part[:-1],
        "exp_avg_sq_col": (*part[:-2], *part[-1:]),
        "exp_avg_res_row": part[:-1],
        "exp_avg_res_col": (*part[:-2], *part[-1:]),
    }
    state = {}
    for name in state_names(whole, block, last_axes):
        dtype = torch.int8 if name.endswith("codes") else torch.float32
        zeros = torch.zeros(shapes[name], dtype=dtype, device=parameter.device)
        shared = name.endswith("col") and len(seen) == 2
        state[name] = layout.same(zeros) if shared else layout.rows(zeros, whole[0] if whole else 1)
    return state


def _update(
    grad: Tensor,
    state: dict[str, Tensor],
    group: dict[str, Any],
    layout: Layout,
    whole: torch.Size,
    shape: tuple[int, ...] | None,
) -> Tensor:
    """Update `state` and return the step before the learning rate, like `grad`: this process's rows of algorithm 2."""
    beta1, beta2, beta3 = group["betas"]
    eps1, eps2 = group["eps"]
    square = grad.square().add_(eps1)
    if shape is None:
        step = state["exp_avg_sq"].lerp_(square, 1 - beta2).rsqrt().mul_(grad)
    else:
        step = _inverse_root(state, "sq", square, 1 - beta2, layout, shape).mul_(grad)
    rms = (layout.total(step.square().sum()) / whole.numel()).sqrt()
    step.div_((rms / group["clip_threshold"]).clamp_min(1.0))
    mean = _first_moment(state, step, 1 - beta1, group["block"])
    if shape is None:
        return mean
    deviation = (step - mean).square_().add_(eps2)
    return _inverse_root(state, "res", deviation, 1 - beta3, layout, shape).mul_(mean)


def _inverse_root(
    state: dict[str, Tensor],
    kind: str,
    values: Tensor,
    weight: float,
    layout: Layout,
    shape: tuple[int, ...],
) -> Tensor:
    """1 / sqrt of the moving mean of values [..., R, C], from its rows and columns: row x column / mean.

    The mean is taken of the columns, which every process has, and not of the rows: both are the mean of all values.
    """
    row, column = state[f"exp_avg_{kind}_row"], state[f"exp_avg_{kind}_col"]
    row.lerp_(values.mean(-1), weight)
    sums = values.sum(-2)
    sums = layout.total(sums) if len(shape) == 2 else sums
    column.lerp_(sums / shape[-2], weight)
    share = row / column.mean(-1, keepdim=True)
    return share.rsqrt_().unsqueeze(-1) * column.rsqrt().unsqueeze(-2)


def _first_moment(state: dict[str, Tensor], step: Tensor, weight: float, block: int | None) -> Tensor:
    """Return the moving mean of the steps, shaped like `step`, moved on and kept."""
    if "exp_avg_codes" not in state or block is None:
        return state["exp_avg"].view(step.shape).lerp_(step, weight)
    mean = from_blocks(state["exp_avg_codes"], state["exp_avg_scales"], block).lerp_(step, weight)
    codes, scales = to_blocks(mean, block)
    state["exp_avg_codes"].copy_(codes)
    state["exp_avg_scales"].copy_(scales)
    return mean


def to_blocks(x: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """x [R, C] -> codes int8 [R, C], scales float32 [R, ceil(C / block)]; the last block of a row may be short."""
    parts = _split(x, block)  # [R, K, block]
    scales = parts.abs().amax(-1) / _LARGEST
    codes = (parts / scales.clamp_min(torch.finfo(torch.float32).tiny).unsqueeze(-1)).round_()
    return codes.to(torch.int8).flatten(1)[:, : x.shape[1]].contiguous(), scales


def from_blocks(codes: Tensor, scales: Tensor, block: int) -> Tensor:
    """Return the values [R, C] float32 that codes [R, C] and scales [R, ceil(C / block)] stand for."""
    parts = _split(codes.float(), block) * scales.unsqueeze(-1)
    return parts.flatten(1)[:, : codes.shape[1]]


def _split(x: Tensor, block: int) -> Tensor:
    """[R, C] -> [R, K, block], rows filled up with zeros."""
    count = -(-x.shape[1] // block)
    return F.pad(x, (0, count * block - x.shape[1])).view(x.shape[0], count, block)
