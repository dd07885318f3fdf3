"""The published transformers with their schedules: what a file of their weights leaves unsaid.

Sources: the official configurations (NVlabs/Sana), and for shifts the schedulers of the converted folders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from sanakit.transformer import PRESETS, TransformerConfig
from sanakit.weights.formats.diffusers_scheduler import Schedule

__all__ = ["DESIGNS", "Design"]


@dataclass(frozen=True, kw_only=True)
class Design:
    """instruct: prompts are preceded by the instruction. bins: see `ModelSpec`; None for what the size says."""

    transformer: TransformerConfig
    schedule: Schedule
    instruct: bool = True
    bins: bool | None = None


def _design(name: str) -> Design:
    transformer = PRESETS[name]
    if transformer.guidance_embed:
        return Design(transformer=transformer, schedule=Schedule(kind="scm"))
    if name == "toybox":
        return Design(transformer=transformer, schedule=Schedule(shift=2.0), instruct=False, bins=False)
    return Design(transformer=transformer, schedule=Schedule(shift=6.0 if name.endswith("-4k") else 3.0))


def _teacher(name: str) -> Design:
    """What Sprint was distilled from: a flow model that reads times from 0 to 1."""
    student = PRESETS[name]
    return Design(
        transformer=replace(student, guidance_embed=False, time_scale=0.001), schedule=Schedule(shift=3.0)
    )


DESIGNS: Mapping[str, Design] = MappingProxyType(
    {
        **{name: _design(name) for name in PRESETS},
        "sprint-0.6b-1024-teacher": _teacher("sprint-0.6b-1024"),
        "sprint-1.6b-1024-teacher": _teacher("sprint-1.6b-1024"),
    }
)
"""By the short name, the names of the hub's models among them."""
