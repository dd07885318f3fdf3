"""The live tensors of a run under fixed names: a checkpoint is written from them and read into them.

model.NAME    weights and buffers         ema.NAME    averaged weights
optim.NAME.KEY    the optimiser's state of weight NAME
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sanakit.training.ema import EMA


def run_tensors(model: nn.Module, ema: EMA, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Every tensor that decides how the run goes on. The optimiser's state must exist: see `begin_state`.

    Raises TypeError for an optimiser that keeps state in anything but tensors.
    """
    found = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    found |= {f"ema.{name}": tensor for name, tensor in ema.weights.items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if not isinstance(value, Tensor):
                raise TypeError(f"{type(optimizer).__name__} keeps {key} as {type(value).__name__}")
            found[f"optim.{name}.{key}"] = value
    return found


def begin_state(optimizer: torch.optim.Optimizer) -> None:
    """Make the optimiser create its state, by a step that changes nothing: a checkpoint is then read into it."""
    if optimizer.state:
        return
    groups, parameters = optimizer.param_groups, _parameters(optimizer)
    rates, decays = [group["lr"] for group in groups], [group.get("weight_decay", 0.0) for group in groups]
    kept = [p.detach().clone() for p in parameters]
    for group in groups:
        group["lr"], group["weight_decay"] = 0.0, 0.0
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    for group, rate, decay in zip(groups, rates, decays, strict=True):
        group["lr"], group["weight_decay"] = rate, decay
    with torch.no_grad():
        for parameter, before in zip(parameters, kept, strict=True):
            parameter.copy_(before)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
