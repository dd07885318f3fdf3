"""What a checkpoint holds: tensors under fixed names, and facts that say whether another run may go on from it.

    model.NAME        weights and buffers
    ema.NAME          averaged weights
    optim.NAME.KEY    the optimiser's state of weight NAME

NAME is that of the bare network, whoever plays and whatever is wrapped.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sanakit import __version__
from sanakit.base.errors import ConfigError
from sanakit.training.edits import bare_name, named_weights
from sanakit.training.parallel import World
from sanakit.training.players import EMA, Player

FORMAT = 1


def run_tensors(
    model: nn.Module, players: Sequence[Player], averages: Mapping[str, EMA]
) -> dict[str, Tensor]:
    """Return every tensor that decides how the run goes on. The optimisers' state must exist: see `begin_state`.

    Raises TypeError for an optimiser that keeps state in anything but tensors.
    """
    found = {f"model.{bare_name(name)}": tensor for name, tensor in model.state_dict().items()}
    for player in players:
        found |= average_tensors(model, player, averages)
    for name, parameter in named_weights(model):
        for player in players:
            for key, value in player.optimizer.state.get(parameter, {}).items():
                if not isinstance(value, Tensor):
                    raise TypeError(
                        f"{type(player.optimizer).__name__} keeps {key} as {type(value).__name__}"
                    )
                found[f"optim.{name}.{key}"] = value
    return found


def average_tensors(model: nn.Module, player: Player, averages: Mapping[str, EMA]) -> dict[str, Tensor]:
    """Return the averaged weights of a player by their names in a checkpoint; empty if it has none."""
    if player.name not in averages:
        return {}
    prefix = _prefix(model, player)
    return {f"ema.{prefix}{name}": tensor for name, tensor in averages[player.name].weights.items()}


def plays_in(stored: Collection[str], model: nn.Module, player: Player) -> bool:
    """Return whether a checkpoint, given the names of its tensors, has the state of a player's optimiser.

    It has none of a player that had not moved by then.
    """
    start = f"optim.{_prefix(model, player)}"
    return any(name.startswith(start) for name in stored)


def _prefix(model: nn.Module, player: Player) -> str:
    """Return the beginning of the names of a player's parameters."""
    name = next(name for name, module in model.named_modules() if module is player.module)
    return bare_name(f"{name}.") if name else ""


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


def gather_facts(
    step: int, guard: dict[str, Any], identity: Mapping[str, Any], world: World
) -> dict[str, Any]:
    """Return the facts of a checkpoint. Noise and data are functions of seed and step: the step is their position."""
    return {
        "format": FORMAT,
        "step": step,
        "guard": guard,
        "settings": dict(identity),
        "processes": world.size,
        "parallel": world.mode,
        "sanakit": __version__,
        "torch": torch.__version__,
    }


def check_facts(facts: Mapping[str, Any], identity: Mapping[str, Any], checkpoint: Path) -> None:
    """Raise ConfigError unless a run of these settings may go on from a checkpoint."""
    if facts.get("format") != FORMAT:
        raise ConfigError(
            f"{checkpoint} is of format {facts.get('format')}, written by sanakit {facts.get('sanakit')}; "
            f"this version reads format {FORMAT}: continue with that version, or start in another folder"
        )
    changed = differences(facts.get("settings", {}), identity)
    if changed:
        raise ConfigError(
            f"{checkpoint} belongs to other settings ({'; '.join(changed[:5])}); "
            f"set them back, or start in another folder"
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`name: old -> new` for each value that differs, in nested mappings as well."""
    found = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name}: {old} -> {new}")
    return found
