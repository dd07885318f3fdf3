"""A server as a process: it takes its address first, loads, says that it is ready, and ends without losing a job."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn

from sanakit.base.errors import ConfigError
from sanakit.server.app import create_app
from sanakit.server.engine.config import EngineConfig
from sanakit.server.engine.engine import Engine
from sanakit.server.keys import KeyStore
from sanakit.server.settings import Settings
from sanakit.server.traces import export_traces

Tell = Callable[[str], object]

_BACKLOG = 2048  # connections that wait to be taken
_KEEP_ALIVE = 30  # seconds that an idle connection stays


def serve(config: EngineConfig, settings: Settings, ready: Tell) -> int:
    """Serve until SIGINT or SIGTERM; return the number of jobs that are left for the next start.

    ready: told the address, once requests are answered. Raises ConfigError for a public address without keys and for
    one that can't be had, and as `Engine`.
    """
    check_public(config, settings)
    with contextlib.closing(listen(settings)) as listener:
        engine = Engine(config)
        try:
            engine.start()
            address = shown_address(settings.host, listener.getsockname()[1])
            server = Server(engine, settings, lambda: ready(address))
            server.run(sockets=[listener])
        finally:
            engine.stop(drain=False)
    left = engine.stats
    return left.queued + left.running


def check_public(config: EngineConfig, settings: Settings) -> None:
    """Raise ConfigError for a public address without keys, and for keys that can't be read."""
    keys = KeyStore(config.data).all()
    if settings.is_public and not keys:
        raise ConfigError(
            f"{settings.host} lets other machines draw here, and there is no key: make one by "
            f"`sanakit keys add NAME --data {config.data}`, or listen at 127.0.0.1"
        )


def shown_address(host: str, port: int) -> str:
    """Return the address as people type it."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def listen(settings: Settings) -> socket.socket:
    """Return a socket at the address. Raises ConfigError."""
    try:
        family, *_, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        why = error.strerror or str(error)
        raise ConfigError(
            f"can't listen at {settings.host} port {settings.port}: {why}; choose another --host or --port"
        ) from None


class Server(uvicorn.Server):
    """uvicorn, which tells when it is ready. Its engine stops while connections end, since streams wait for that."""

    def __init__(self, engine: Engine, settings: Settings, ready: Callable[[], object]) -> None:
        self.app = create_app(engine, settings, export_traces() if settings.traces else None)
        super().__init__(
            uvicorn.Config(
                self.app, lifespan="off", log_config=None, access_log=False, server_header=False,
                timeout_keep_alive=_KEEP_ALIVE, timeout_graceful_shutdown=int(settings.drain) + 5,
            )
        )  # fmt: skip
        self._engine, self._settings, self._ready = engine, settings, ready

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End after a signal; after a second one without waiting for jobs or clients."""
        if self.should_exit:
            self.force_exit = True
            threading.Thread(target=self._engine.stop, kwargs={"drain": False}).start()
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, let the engine finish or put away its jobs, and end."""
        self.app.state.service.stopping.set()
        drain = self._settings.drain
        stopping = asyncio.to_thread(self._engine.stop, drain=drain > 0, seconds=drain)
        await asyncio.gather(stopping, super().shutdown(sockets))
