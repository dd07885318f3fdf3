"""Floor 8: models as a service. Data flows request -> job -> store -> scheduler -> batch -> picture -> subscribers.

engine/    jobs: their queue in SQLite, pictures drawn many at once, and whoever listens; knows no HTTP
api/       routes: our own, OpenAI's, AUTOMATIC1111's, health and the page, with what they read and answer
page/      the page in the browser

app        the application over an engine         run        the process: its address, signals, its end
service    who asks, and jobs that are counted    settings   how it listens, whom it lets in
keys, signed_tokens, rates, security   who may do what   metrics, logs, traces   how it is watched
ray/       the same on Ray Serve, with replicas that draw

Names are resolved when first used: the command line reads options without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sanakit.server.app import create_app
    from sanakit.server.engine.config import EngineConfig
    from sanakit.server.engine.engine import Engine
    from sanakit.server.engine.errors import JobNotFoundError, PictureNotFoundError, QueueFullError
    from sanakit.server.engine.jobs import Job, JobEvent, JobPicture, JobSpec, JobState
    from sanakit.server.engine.stats import EngineStats
    from sanakit.server.engine.subscriptions import Subscription
    from sanakit.server.settings import Settings

_HOMES = {
    "app": ("create_app",),
    "engine.config": ("EngineConfig",),
    "engine.engine": ("Engine",),
    "engine.errors": ("JobNotFoundError", "PictureNotFoundError", "QueueFullError"),
    "engine.jobs": ("Job", "JobEvent", "JobPicture", "JobSpec", "JobState"),
    "settings": ("Settings",),
    "engine.stats": ("EngineStats",),
    "engine.subscriptions": ("Subscription",),
}

__all__ = [
    "Engine",
    "EngineConfig",
    "EngineStats",
    "Job",
    "JobEvent",
    "JobNotFoundError",
    "JobPicture",
    "JobSpec",
    "JobState",
    "PictureNotFoundError",
    "QueueFullError",
    "Settings",
    "Subscription",
    "create_app",
]


def __getattr__(name: str) -> object:
    """Import the home of a public name on first use. Raises AttributeError for any other name."""
    for home, names in _HOMES.items():
        if name in names:
            value: object = getattr(import_module(f"sanakit.server.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'sanakit.server' has no attribute {name!r}")
