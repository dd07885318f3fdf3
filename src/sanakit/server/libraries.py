"""The libraries of the extra `serve`, asked for before anything is loaded or opened."""

from __future__ import annotations

from importlib.util import find_spec

from sanakit.base.errors import ConfigError

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
