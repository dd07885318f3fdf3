"""Who is timed: ways to run one network, as data."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sanakit.base.errors import RequestError


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """One way to run.

    fast: how ours runs (see `pipeline.engine`). peer: whose engine it is, a name of `peers.PEERS`; None for ours.
    compiled: by torch.compile. rounded: the peer rounds to int8. dtype: None for that of the run. pages: whether the C
    library keeps its pages, as our engines ask it to; others run as they are. once: timed at its first and only run,
    because it is slow. differs: relative difference beyond which it does not compute the same thing, and its time means
    nothing.
    """

    name: str
    fast: str | None = None
    peer: str | None = None
    compiled: bool = False
    rounded: bool = False
    dtype: torch.dtype | None = None
    pages: bool = False
    once: bool = False
    differs: float = 0.1

    @property
    def int8(self) -> bool:
        """Whether wide layers are multiplied in int8."""
        return self.rounded or (self.fast or "").startswith("int8")


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
        EngineSpec(name="diffusers", peer="diffusers"),
        EngineSpec(name="diffusers-pages", peer="diffusers", pages=True),
        EngineSpec(name="diffusers-compiled", peer="diffusers", compiled=True),
        EngineSpec(name="diffusers-fp32", peer="diffusers", dtype=torch.float32, once=True),
        EngineSpec(name="openvino", peer="openvino"),
        EngineSpec(name="openvino-int8", peer="openvino", rounded=True),
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
OPTIONAL = ("openvino", "openvino-int8")
"""Timed besides where their libraries are installed."""

FULL = tuple(name for name in ENGINES if not name.endswith("graphs") and name not in OPTIONAL)


def engines_of(names: tuple[str, ...]) -> list[EngineSpec]:
    """Specs by their names. Raises RequestError for an unknown one."""
    for name in names:
        if name not in ENGINES:
            raise RequestError(f"there is no engine {name!r} to time: choose from {', '.join(ENGINES)}")
    return [ENGINES[name] for name in names]
