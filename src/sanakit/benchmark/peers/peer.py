"""What the benchmark asks of a peer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from sanakit.base.errors import RequestError
from sanakit.benchmark.engines import EngineSpec
from sanakit.benchmark.subject import Subject, Work


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One library and what it can do.

    libraries: modules that must be there; rounding: those that int8 needs besides. stages: name -> what makes its work.
    devices: types it runs on.
    """

    name: str
    libraries: tuple[str, ...]
    stages: Mapping[str, Callable[[Subject, EngineSpec], Work]]
    rounding: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu", "cuda", "mps")

    def missing(self, spec: EngineSpec) -> list[str]:
        """Libraries that are not installed, of those that an engine of this peer needs."""
        needed = (*self.libraries, *(self.rounding if spec.int8 else ()))
        return [name for name in needed if not _is_there(name)]

    def check(self, spec: EngineSpec, device: str) -> None:
        """Raises RequestError where something is missing, or the peer does not run on this type of device."""
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


def _is_there(library: str) -> bool:
    """Found without importing it."""
    try:
        return find_spec(library) is not None
    except (ImportError, ValueError):
        return False
