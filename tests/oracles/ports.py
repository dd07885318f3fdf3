"""A port for servers that tests and benchmarks start."""

from __future__ import annotations

import socket


def free_port() -> int:
    """Return a port of this machine at which nobody listens now; whoever needs it takes it soon."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
