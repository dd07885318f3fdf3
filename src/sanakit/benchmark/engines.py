"""Who is timed: our engines and those of other libraries (peers), as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from sanakit.base.errors import RequestError
from sanakit.benchmark.workload import Encoders, Work, Workload


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """One way to run.

    fast: how ours runs (see `pipeline.engine`). peer: whose engine it is, a name of `peers.PEERS`; None for ours.
    compiled: by torch.compile. quantised: the peer quantises to int8. dtype: None for that of the run. pages: whether
    the C library keeps its pages, as our engines ask it to; others run as they are. once: timed at its first and only
    run, because it is slow. differs: relative difference beyond which it doesn't compute the same thing, and its time
    means nothing.
    """

    name: str
    fast: str | None = None
    peer: str | None = None
    compiled: bool = False
    quantised: bool = False
    dtype: torch.dtype | None = None
    pages: bool = False
    once: bool = False
    differs: float = 0.1

    @property
    def int8(self) -> bool:
        """Whether wide layers are multiplied in int8."""
        return self.quantised or (self.fast or "").startswith("int8")


MakeWork = Callable[[Workload, EngineSpec, Encoders], Work]
"""Makes what an engine does for a stage, ready to be timed."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """Another library that runs the same networks, and what it can do.

    libraries: modules that must be installed; for_int8: those that int8 needs as well. stages: name -> what makes its
    work. devices: types it runs on.
    """

    name: str
    libraries: tuple[str, ...]
    stages: Mapping[str, MakeWork]
    for_int8: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu", "cuda", "mps")

    def missing(self, spec: EngineSpec) -> list[str]:
        """Return the libraries that an engine of this peer needs and that aren't installed."""
        needed = (*self.libraries, *(self.for_int8 if spec.int8 else ()))
        return [name for name in needed if not _is_installed(name)]

    def check(self, spec: EngineSpec, device: str) -> None:
        """Raise RequestError if a library is missing, or if the peer doesn't run on this type of device."""
        missing = self.missing(spec)
        if missing:
            raise RequestError(
                f"{spec.name} needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not "
                f"installed: pip install {' '.join(missing)}, or leave {spec.name} out"
            )
        if device not in self.devices:
            raise RequestError(
                f"{spec.name} runs on {' and '.join(self.devices)}, not on {device}: leave it out"
            )


def _is_installed(library: str) -> bool:
    """Return whether a library can be found; it isn't imported."""
    try:
        return find_spec(library) is not None
    except (ImportError, ValueError):
        return False


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
        EngineSpec(name="openvino-int8", peer="openvino", quantised=True),
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
"""Timed as well if their libraries are installed."""

FULL = tuple(name for name in ENGINES if not name.endswith("graphs") and name not in OPTIONAL)


def engines_of(names: tuple[str, ...]) -> list[EngineSpec]:
    """Return specs by their names. Raises RequestError for an unknown one."""
    for name in names:
        if name not in ENGINES:
            raise RequestError(f"there is no engine {name!r} to time: choose from {', '.join(ENGINES)}")
    return [ENGINES[name] for name in names]
