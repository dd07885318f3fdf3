"""How a server listens, whom it lets in, how large a request may be, and where its data are unless it is told."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from sanakit.base.echo import quoted
from sanakit.base.errors import ConfigError

LogForm = Literal["text", "json", "off"]
LOG_FORMS: tuple[LogForm, ...] = get_args(LogForm)
"""How requests are logged: lines for people, a JSON object each for programs, or not at all."""

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names by which a browser on the same machine reaches a server that listens to nobody else."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a server; those of what it draws are in `EngineConfig`.

    host, port   where it listens; port 0 takes a free one
    hosts        further names under which clients reach it, such as that of a proxy before it
    rate         jobs of a key whose own rate isn't set, such as `60/minute`; None for any number
    body         bytes of a request's body, at most
    input_pixels pixels of a picture that a client sends, at most
    cells        jobs of a grid, at most
    drain        seconds that a server which is told to stop gives to jobs that run; 0 stops them at their next step
    logs         how requests are logged
    traces       whether spans go to the collector that OTEL_EXPORTER_OTLP_ENDPOINT names
    Raises ConfigError for values that make no sense.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    hosts: tuple[str, ...] = ()
    rate: str | None = None
    body: int = 32 << 20
    input_pixels: int = 32 << 20
    cells: int = 64
    drain: float = 30.0
    logs: LogForm = "text"
    traces: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"a port is a number from 0 to 65535, not {self.port}")
        if not self.host or not self.host.isprintable() or " " in self.host:
            raise ConfigError(f"a host is a name or an address, such as 127.0.0.1, not {quoted(self.host)}")
        if self.logs not in LOG_FORMS:
            raise ConfigError(f"logs are {', '.join(LOG_FORMS)}, not {quoted(self.logs)}")

    @property
    def is_public(self) -> bool:
        """Whether other machines can reach it."""
        if self.host == "localhost":
            return False
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:  # a name, which may mean any address
            return True


_NEEDED = {
    "fastapi": "FastAPI", "uvicorn": "uvicorn", "python_multipart": "python-multipart", "limits": "limits",
    "prometheus_client": "prometheus-client",
}  # fmt: skip


def need_libraries(traces: bool = False, ray: bool = False) -> None:
    """Raise ConfigError, one sentence, if a library of the server, of its traces, or Ray is missing."""
    for module, name in _NEEDED.items():
        if find_spec(module) is None:
            raise ConfigError(f'`sanakit serve` needs {name}: run `pip install "sanakit[serve]"`')
    if traces and find_spec("opentelemetry.sdk") is None:
        raise ConfigError('--traces needs OpenTelemetry: run `pip install "sanakit[traces]"`')
    if ray and find_spec("ray") is None:
        raise ConfigError('--ray needs Ray: run `pip install "sanakit[ray]"`')


def data_folder() -> Path:
    """Return `$XDG_DATA_HOME/sanakit/server`, else that below `~/.local/share`."""
    given = os.environ.get("XDG_DATA_HOME", "")  # relative ones are to be ignored
    base = Path(given) if os.path.isabs(given) else Path.home() / ".local" / "share"
    return base / "sanakit" / "server"
