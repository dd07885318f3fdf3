"""A tiny model behind one server for all tests: called in this process, and over a socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from sanakit.server import Engine, EngineConfig
from sanakit.server.app import create_app
from sanakit.server.run import Server
from sanakit.server.settings import Settings
from tests.oracles.tiny import Folders
from tests.server.calling import HOST
from tests.server.fuzz import full_queue


@pytest.fixture(autouse=True)
def _everything_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that waits is begun before the next step, however slow the machine is."""
    monkeypatch.setattr("sanakit.server.engine.scheduler._ADMISSION", 60.0)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def engine(tiny: Folders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine that draws with the tiny model."""
    data = tmp_path_factory.mktemp("data")
    config = EngineConfig(data=data, models=(str(tiny()),), device="cpu", dtype="fp32", count=12, steps=400)
    made = Engine(config)
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def client(engine: Engine) -> Iterator[TestClient]:
    """The application over it, called in this process."""
    with TestClient(create_app(engine, Settings()), base_url=HOST, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="session")
def full(tiny: Folders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ASGIApp]:
    """An application that takes no more jobs."""
    with full_queue(str(tiny()), tmp_path_factory.mktemp("full")) as app:
        yield app


@pytest.fixture(scope="session")
def address(engine: Engine) -> Iterator[str]:
    """The address of a server over it."""
    ready = threading.Event()
    server = Server(engine, Settings(drain=0), ready.set)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        assert ready.wait(30)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(30)
