"""The server on Ray as a process: it checks what it can, starts Serve, says that it is ready, and waits for its end.

The cluster is that of RAY_ADDRESS, else one that is started on this machine and ends with the process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from sanakit.base.errors import SanakitError
from sanakit.base.files import ensure_writable_folder
from sanakit.base.locks import hold
from sanakit.server.engine.catalogue import Catalogue
from sanakit.server.engine.config import EngineConfig
from sanakit.server.ray.deployment import bind
from sanakit.server.ray.scale import Scale
from sanakit.server.run import Tell, check_public, listen, shown_address
from sanakit.server.settings import Settings

_LOG = logging.getLogger("sanakit.server")
_NAME = "sanakit"
_STARTS = 3
"""Tries to start a cluster: Ray 2.60 gives its own processes 15 s, and on a busy machine they may take longer."""


def serve_on_ray(config: EngineConfig, settings: Settings, scale: Scale, ready: Tell) -> int:
    """Serve until SIGINT or SIGTERM; return the number of jobs that are left for the next start.

    ready: told the address, once requests are answered. Raises as `run.serve`, and SanakitError if Serve can't start.
    """
    from ray import serve

    check_public(config, settings)
    config = replace(config, data=config.data.absolute())
    Catalogue(replace(config, device="cpu", dtype=None, fast=None))
    with hold(ensure_writable_folder(config.data) / ".lock", "serves"):
        pass  # another server would be found by the front, late and far away
    with contextlib.closing(listen(settings)) as listener:
        settings = replace(settings, port=listener.getsockname()[1])
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # its greetings are said by the command
    with _cluster(config, scale):
        told = _signals()  # after Ray, which has handlers of its own
        serve.start(proxy_location="HeadOnly", http_options={"host": settings.host, "port": settings.port})
        try:
            front = _run(config, settings, scale)
            ready(shown_address(settings.host, settings.port))
            told.wait()
            left: int = front.stop.remote().result()
            return left
        finally:
            serve.shutdown()


def _run(config: EngineConfig, settings: Settings, scale: Scale) -> Any:
    """Deploy, and return a handle of the front. Raises SanakitError."""
    from ray import serve

    try:
        return serve.run(bind(config, settings, scale), name=_NAME)
    except RuntimeError as error:
        raise SanakitError(f"the application can't be started by Ray Serve: {error}") from error


@contextlib.contextmanager
def _cluster(config: EngineConfig, scale: Scale) -> Iterator[None]:
    """Be connected to a cluster during the block. Raises SanakitError if there is none, and none can be started."""
    import ray

    if os.environ.get("RAY_ADDRESS"):
        _connect("reached", 1)
    else:
        cpus = max(os.cpu_count() or 1, scale.most * scale.cpus(config.threads))
        _connect("started on this machine", _STARTS, num_cpus=cpus, include_dashboard=False)
    try:
        yield
    finally:
        ray.shutdown()


def _connect(done: str, tries: int, **options: Any) -> None:
    """Connect to a cluster, or start one. done: what can't be done to it, in the message of SanakitError."""
    import ray

    for left in reversed(range(tries)):
        try:
            ray.init(**options, logging_level="ERROR", log_to_driver=False)
            return
        except Exception as error:  # Ray has no type of its own for a node that took too long
            ray.shutdown()
            if not left:
                told = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
                raise SanakitError(f"no cluster of Ray can be {done}: {told}") from error
            _LOG.warning("Ray did not start: once more")


def _signals() -> threading.Event:
    """Return an event that is set by the first signal to end; a second one ends at once."""
    told = threading.Event()

    def tell(number: int, frame: object) -> None:
        if told.is_set():
            raise KeyboardInterrupt
        told.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, tell)
    return told
