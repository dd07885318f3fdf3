"""What a checkpoint says of its run beside the tensors, and whether another run may go on from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sanakit import __version__
from sanakit.base.errors import ConfigError
from sanakit.training.parallel import World

FORMAT = 1


def gather_facts(
    step: int, guard: dict[str, Any], identity: Mapping[str, Any], world: World
) -> dict[str, Any]:
    """The facts of a checkpoint. Noise and data are functions of seed and step: the step is their position."""
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
