"""Who is timed: ways to run one network, as data."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sanakit.base.errors import RequestError


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """One way to run.

    fast: how ours runs (see `pipeline.engine`); None for diffusers. compiled: by torch.compile. dtype: None for that of
    the run. pages: whether the C library keeps its pages, as our engines ask it to; others run as they are. once: timed
    at its first and only run, because it is slow.
    """

    name: str
    fast: str | None = None
    compiled: bool = False
    dtype: torch.dtype | None = None
    pages: bool = False
    once: bool = False


ENGINES: dict[str, EngineSpec] = {
    spec.name: spec
    for spec in (
        EngineSpec(name="sanakit", fast="auto", pages=True),
        EngineSpec(name="sanakit-int8", fast="int8", pages=True),
        EngineSpec(name="sanakit-compiled", fast="compiled", pages=True),
        EngineSpec(name="sanakit-int8-compiled", fast="int8-compiled", pages=True),
        EngineSpec(name="sanakit-plain", fast="off"),
        EngineSpec(name="sanakit-graphs", fast="graphs"),
        EngineSpec(name="sanakit-int8-graphs", fast="int8-graphs"),
        EngineSpec(name="sanakit-fp8-graphs", fast="fp8-graphs"),
        EngineSpec(name="diffusers"),
        EngineSpec(name="diffusers-pages", pages=True),
        EngineSpec(name="diffusers-compiled", compiled=True),
        EngineSpec(name="diffusers-fp32", dtype=torch.float32, once=True),
    )
}
"""Everyone that can be timed, by name."""

ON_GPU = (
    "sanakit",
    "sanakit-graphs",
    "sanakit-int8-graphs",
    "sanakit-fp8-graphs",
    "diffusers",
    "diffusers-compiled",
)
DEFAULT = ("sanakit", "sanakit-int8", "sanakit-int8-compiled", "diffusers", "diffusers-fp32")
FULL = tuple(name for name in ENGINES if not name.endswith("graphs"))


def engines_of(names: tuple[str, ...]) -> list[EngineSpec]:
    """Specs by their names. Raises RequestError for an unknown one."""
    for name in names:
        if name not in ENGINES:
            raise RequestError(f"there is no engine {name!r} to time: choose from {', '.join(ENGINES)}.")
    return [ENGINES[name] for name in names]
