"""Floor 8: models as a service. Data flows submit -> store -> scheduler -> batch -> picture -> subscribers.

jobs        values: what was asked for, and how far it is      engine         the way in: submit, cancel, get, subscribe
book        unfinished jobs, where each changes its state      worker         the thread that has pictures drawn
scheduler   what draws in this process, a step at a time       dispatcher     has replicas draw; on Ray: ray, cluster
drawing, groups   pictures on their way, and who takes turns   stages         before the first step and after the last
store       jobs and pictures in SQLite                        models         networks in memory, released by memory
files       pictures and inputs in the data folder             previews       latents as small pictures
subscriptions  what happens, to whoever listens                config         models, limits and places of an engine

app          the application: three APIs and the page        run            the process: its address, signals, its end
native, openai_images, a1111   routes, their bodies beside   service        who asks, and jobs that are counted
request_body, translate        JSON to a request             events, faults what routes answer
keys, rates, security          who may do what               health, metrics, logs, traces   how it is watched

Names are resolved when first used: the command line reads options without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sanakit.server.app import create_app
    from sanakit.server.config import EngineConfig
    from sanakit.server.engine import Engine
    from sanakit.server.errors import JobNotFoundError, PictureNotFoundError, QueueFullError
    from sanakit.server.jobs import Job, JobEvent, JobPicture, JobSpec, JobState
    from sanakit.server.settings import Settings
    from sanakit.server.stats import EngineStats
    from sanakit.server.subscriptions import Subscription

_HOMES = {
    "app": ("create_app",),
    "config": ("EngineConfig",),
    "engine": ("Engine",),
    "errors": ("JobNotFoundError", "PictureNotFoundError", "QueueFullError"),
    "jobs": ("Job", "JobEvent", "JobPicture", "JobSpec", "JobState"),
    "settings": ("Settings",),
    "stats": ("EngineStats",),
    "subscriptions": ("Subscription",),
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
