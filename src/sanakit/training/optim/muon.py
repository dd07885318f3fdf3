"""Muon: steps of matrices with all directions equally long, beside AdamW for everything else (arXiv 2502.16982).

The momentum of a matrix [R, C] is replaced by one with the same row and column spaces, and singular values near 1: five
Newton-Schulz steps instead of a singular value decomposition. Times 0.2 sqrt(max(R, C)) such a step is as large as
AdamW's usually is, so a learning rate and a decay found with AdamW hold for both (section 2.2). A matrix keeps its
momentum alone: 4 bytes per value where Adam keeps 8.

torch.optim.Muon takes the same steps. It computes them in bf16 on every chip, leaves the other parameters to a second
optimiser, and takes no convolutions; here one optimiser has all parameters, so there is one state to save.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from sanakit.base.errors import ConfigError
from sanakit.training.optim.layout import layout_of

_QUINTIC = (3.4445, -4.7750, 2.0315)
"""Of a s + b s^3 + c s^5, Jordan's and torch's: steep at 0, and five times over 0.68 to 1.13 for s from 0.01 to 1."""

_STEPS = 5
_RMS = 0.2  # of AdamW's steps, as a share of the learning rate (arXiv 2502.16982, section 2.2)
_SMALLEST = 1e-7  # norm to divide by: the step of a gradient of zeros is zero


class Muon(Optimizer):
    """Momentum with orthogonal steps for groups with `orthogonal`, AdamW for the others.

    Works on parameters that FSDP2 cut into rows: each matrix is gathered for its step, which every process computes.

    Args:
        params: parameters or groups. A group is orthogonal unless it says False; its tensors are matrices [R, C] or 1x1
            convolutions [R, C, 1, 1]. `hidden_groups` makes the groups of a model.
        lr: learning rate.
        momentum: decay of the momentum of orthogonal groups; it is looked ahead by a step (Nesterov).
        betas, eps: of AdamW.
        weight_decay: decoupled, times the learning rate.
        fused: whether AdamW is one kernel.
        dtype: of the Newton-Schulz steps; bf16 is exact enough for them (arXiv 2502.16982).

    Raises:
        ConfigError: for an orthogonal group with other tensors.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        fused: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "fused": fused, "orthogonal": True})
        self._dtype = dtype
        orthogonal = (p for group in self.param_groups if group["orthogonal"] for p in group["params"])
        for parameter in orthogonal:
            if not _is_matrix(parameter):
                raise ConfigError(
                    f"optimizer: muon moves matrices, not tensors of shape {list(parameter.shape)}; "
                    "put them into a group with orthogonal=False"
                )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not group["orthogonal"]:
                self._move_by_adamw(moved, group)
                continue
            for parameter in moved:
                self._move(parameter, group)
        return loss

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        layout, state = layout_of(parameter), self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        weight, grad = layout.local(parameter), layout.local(parameter.grad)
        mean = layout.local(state["momentum_buffer"]).lerp_(grad, 1 - group["momentum"])
        ahead = layout.whole(layout.rows(grad.lerp(mean, group["momentum"]), parameter.shape[0]))
        step = orthogonalised(ahead.flatten(1), self._dtype).to(weight.dtype)
        size = _RMS * math.sqrt(max(step.shape))
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.sub_(layout.part(step.view(parameter.shape)), alpha=group["lr"] * size)

    def _move_by_adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                place = parameter.device if group["fused"] else "cpu"
                self.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=place),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        kept = [self.state[parameter] for parameter in parameters]
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        first, second, steps = ([state[name] for state in kept] for name in ("exp_avg", "exp_avg_sq", "step"))
        (beta1, beta2), lr, decay, eps = group["betas"], group["lr"], group["weight_decay"], group["eps"]
        adamw(
            parameters, grads, first, second, [], steps, fused=group["fused"], amsgrad=False, maximize=False,
            beta1=beta1, beta2=beta2, lr=lr, weight_decay=decay, eps=eps,
        )  # fmt: skip


def orthogonalised(matrix: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """U f(S) V^T of a matrix U S V^T [R, C] with f near 1, computed in `dtype`: Newton-Schulz, five steps.

    S is divided by its norm first, so that no singular value is above 1.
    """
    x = matrix.to(dtype)
    x = x / x.norm().clamp_min(_SMALLEST)
    tall = x.shape[0] > x.shape[1]
    x = x.mT if tall else x  # the square products are then of the shorter side
    a, b, c = _QUINTIC
    for _ in range(_STEPS):
        square = x @ x.mT
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def hidden_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Group trained parameters for `Muon`: hidden matrices, other matrices (with decay), biases and scales of norms.

    Hidden are the weights of linear layers and 1x1 convolutions in lists of blocks (`nn.ModuleList`), as in the
    transformer, in Gemma and in DC-AE. Embeddings, heads, modulation and depthwise convolutions are AdamW's.
    Raises ConfigError if no hidden matrix is trained.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    hidden = {id(p) for p in _hidden_weights(model)}
    matrices = [p for p in trained if id(p) in hidden]
    if not matrices:
        raise ConfigError("optimizer: muon needs matrices in blocks, and none is trained; take adamw")
    others = [p for p in trained if id(p) not in hidden and p.ndim > 1]
    vectors = [p for p in trained if p.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": weight_decay, "orthogonal": True},
        {"params": others, "weight_decay": weight_decay, "orthogonal": False},
        {"params": vectors, "weight_decay": 0.0, "orthogonal": False},
    ]


def _hidden_weights(model: nn.Module) -> list[Tensor]:
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    layers = (layer for blocks in lists for layer in blocks.modules())
    weights = [layer.weight for layer in layers if isinstance(layer, nn.Linear | nn.Conv2d)]
    return [weight for weight in weights if _is_matrix(weight)]


def _is_matrix(weight: Tensor) -> bool:
    """Return whether a weight is [R, C] or [R, C, 1, 1] with several rows and columns: depthwise 1x1 ones aren't."""
    return weight.ndim >= 2 and min(weight.shape[:2]) > 1 and weight.shape[2:].numel() == 1
