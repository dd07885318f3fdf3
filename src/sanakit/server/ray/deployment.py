"""The server as an application of Ray Serve: one front, and replicas that draw. Its functions need the extra `ray`.

    front    one replica: the HTTP application over an engine with its data folder, whose `Dispatcher` has drawers draw
    drawer   as many as there is work for, each an engine of its own in a folder that goes with it: it batches
             continuously what it is given, and has the models in memory that it drew with last

`serve deploy` takes `sanakit.server.ray.deployment:application` as import path; its `args` are the fields of `Args`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Set
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sanakit.base.errors import ConfigError
from sanakit.server.app import create_app
from sanakit.server.engine.config import EngineConfig, controls_in, loras_in
from sanakit.server.engine.engine import Engine
from sanakit.server.engine.errors import reason
from sanakit.server.engine.jobs import Job, JobEvent, JobSpec
from sanakit.server.engine.stats import EngineStats
from sanakit.server.engine.subscriptions import Subscription
from sanakit.server.logs import set_up_logs
from sanakit.server.ray.dispatcher import Dispatcher
from sanakit.server.ray.replicas import COUNTED, News, ReplicaLostError, Task
from sanakit.server.ray.scale import Scale
from sanakit.server.run import check_public
from sanakit.server.service import Service
from sanakit.server.settings import LogForm, Settings
from sanakit.server.traces import export_traces

if TYPE_CHECKING:
    from ray import serve

FRONT, DRAWER = "front", "drawer"
"""Names of the deployments."""

_CLIENTS = 1000  # requests at once, and as many waiting: whoever listens to a job is one
_MODELS = 3  # of a replica that Serve knows of, to find one that has a model; memory decides what stays
_ANSWERED = 30.0  # seconds in which replicas answer to what all of them are told
_EVERYWHERE = "0.0.0.0"  # noqa: S104  what is not known counts as public
_LONG_PICTURE = 600.0  # seconds that a replica that is no longer needed has for what it draws


class Args(BaseModel):
    """What `serve deploy` may say under `args`; see `EngineConfig` and `Settings`, whose fields these are.

    loras, controls: folders, as for `sanakit serve`. replicas: N or MIN:MAX. gpus: of each. Where Serve listens is said
    in its own `http_options` alone.
    """

    model_config = ConfigDict(extra="forbid")
    data: Path
    models: tuple[str, ...] = EngineConfig.models
    loras: Path | None = None
    controls: Path | None = None
    decoder: str | None = None
    device: str | None = None
    dtype: str | None = None
    fast: str | None = None
    threads: int | None = None
    queue: int = EngineConfig.queue
    batch: int = EngineConfig.batch
    count: int = EngineConfig.count
    steps: int = EngineConfig.steps
    pixels: int = EngineConfig.pixels
    keep_days: float | None = Field(None, gt=0)
    keep_pictures: int | None = Field(None, ge=1)
    hosts: tuple[str, ...] = ()
    rate: str | None = None
    body: int = Settings.body
    drain: float = Settings.drain
    logs: LogForm = Settings.logs
    traces: bool = False
    replicas: str | int = 1
    gpus: float = 0.0

    def read(self) -> tuple[EngineConfig, Settings, Scale]:
        """Return what they say. Raises ConfigError."""
        own = {"loras", "controls", "replicas", "gpus"}
        said = self.model_dump(exclude=own)
        of_settings = {name: said.pop(name) for name in list(said) if name in Settings.__dataclass_fields__}
        config = EngineConfig(loras=loras_in(self.loras), controls=controls_in(self.controls), **said)
        return config, Settings(**of_settings), Scale.parse(str(self.replicas), self.gpus)


def application(args: dict[str, Any]) -> serve.Application:
    """Return the application for `serve deploy`. args: the fields of `Args`. Raises ConfigError."""
    try:
        said = Args.model_validate(args)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"args: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from None
    return bind(*said.read())


def bind(config: EngineConfig, settings: Settings, scale: Scale) -> serve.Application:
    """Return the application of a configuration, to be run by Serve."""
    from ray import serve

    places = scale.most * config.batch
    number: dict[str, Any] = {"num_replicas": scale.least}
    if scale.most > scale.least:
        number = {
            "autoscaling_config": {
                "min_replicas": scale.least,
                "max_replicas": scale.most,
                "target_ongoing_requests": config.batch,  # a batch is filled before another replica starts
            }
        }
    cpus = scale.cpus(config.threads)
    drawer = serve.deployment(
        # One more than it draws: word of who watches is a request, too, and would wait for the end of a picture.
        name=DRAWER, **number, max_ongoing_requests=config.batch + 1, max_queued_requests=places,
        graceful_shutdown_timeout_s=_LONG_PICTURE, ray_actor_options={"num_cpus": cpus, "num_gpus": scale.gpus},
    )(Drawer)  # fmt: skip
    front = serve.deployment(
        name=FRONT, num_replicas=1, max_ongoing_requests=_CLIENTS, max_queued_requests=_CLIENTS,
        graceful_shutdown_timeout_s=settings.drain + 10.0, ray_actor_options={"num_cpus": 0},
    )(serve.ingress(_builder(config, settings, places))(Front))  # fmt: skip
    drawers = replace(config, threads=cpus, signer=None, keep_days=None, keep_pictures=None)
    made: serve.Application = front.bind(drawer.bind(drawers))
    return made


def _builder(config: EngineConfig, settings: Settings, places: int) -> Callable[[], FastAPI]:
    """Return what makes the HTTP application, in the front's process. Raises ConfigError there, as `run.serve`."""

    def build() -> FastAPI:
        from ray import serve

        found = _as_served(settings)
        check_public(config, found)
        set_up_logs(settings.logs, logging.getLogger("ray.serve").info)
        handle = serve.get_deployment_handle(DRAWER, serve.get_replica_context().app_name)
        engine = open_engine(config, _Replicas(handle.options(stream=True), places))
        engine.start()
        return create_app(engine, found, export_traces() if found.traces else None)

    return build


def _as_served(settings: Settings) -> Settings:
    """Return the settings, with the address at which Serve listens: that decides who can reach the application."""
    from ray.serve.context import _get_global_client  # Ray has no public word for its own address

    http = _get_global_client().http_config
    return replace(settings, host=http.host or _EVERYWHERE, port=http.port)


def open_engine(config: EngineConfig, replicas: _Replicas) -> Engine:
    """Return an engine that keeps jobs and pictures here, and has them drawn by replicas.

    It reads configurations of models and no weights. What memory lets be drawn is known to the replicas alone.
    """
    here = replace(config, device="cpu", dtype=None, fast=None)

    def executor(*parts: Any) -> Dispatcher:
        return Dispatcher(replicas, *parts)

    return Engine(here, lambda device: None, executor)


class Front:
    """The HTTP application. It holds the data folder, so there is one."""

    app: FastAPI

    def __init__(self, drawer: Any) -> None:
        del drawer  # bound, so that Serve deploys it first

    async def stop(self) -> int:
        """Stop for good, and return the number of jobs that are left for the next start."""
        service: Service = self.app.state.service
        service.stopping.set()
        drain = service.settings.drain
        await asyncio.to_thread(service.engine.stop, drain=drain > 0, seconds=drain)
        left = service.engine.stats
        return left.queued + left.running

    async def __del__(self) -> None:
        """Stop, however Serve ends."""
        await self.stop()


class Drawer:
    """A replica. config: its `data` is passed over for a folder of the replica's own."""

    def __init__(self, config: EngineConfig) -> None:
        self._folder = TemporaryDirectory(prefix="sanakit-")
        self._engine = Engine(replace(config, data=Path(self._folder.name)))
        self._engine.start()
        while not self._engine.is_ready:  # Serve sends it nothing before
            time.sleep(0.02)
        self._told = EngineStats()
        self._note_model = _model_noter()
        self._listening: list[tuple[str, Subscription]] = []  # and the job's id where it was accepted

    async def draw(self, task: Task) -> AsyncIterator[News]:
        """Draw a picture; whoever stops to listen has it dropped at its next step."""
        await self._note_model(task.model)
        try:
            job = await asyncio.to_thread(self._submit, task)
        except Exception as error:
            yield News(kind="failed", message=reason(error))
            return
        subscription = self._engine.subscribe(job.id, previews=task.watched)
        entry = (task.job, subscription)
        self._listening.append(entry)
        try:
            async for event in subscription:
                news = self._news(event)
                if news is not None:
                    yield news
        finally:
            self._listening.remove(entry)
            subscription.close()
            self._engine.delete(job.id)

    def watch(self, jobs: Set[str]) -> None:
        """Make previews for these jobs from now on, and for no others."""
        for name, subscription in list(self._listening):
            subscription.previews = name in jobs

    def _submit(self, task: Task) -> Job:
        request = self._engine.catalogue.with_files(task.request)
        return self._engine.submit(JobSpec(model=task.model, request=request, attempts=task.attempts))

    def _news(self, event: JobEvent) -> News | None:
        job, picture = event.job, event.picture
        if event.kind == "picture" and picture is not None:
            return News(
                kind="picture", png=self._engine.picture(picture.id), seed=picture.seed, width=picture.width,
                height=picture.height, counted=self._growth(),
            )  # fmt: skip
        if event.kind == "step":
            return News(kind="step", step=job.step, preview=event.preview)
        if event.kind == "failed":
            return News(kind="failed", message=event.message or "", counted=self._growth())
        if event.kind == "note":
            return News(kind="note", message=event.message or "")
        begun = event.kind == "started" or (event.kind == "snapshot" and job.state == "running")
        return News(kind="started") if begun else None

    def _growth(self) -> dict[str, float]:
        before, self._told = self._told, self._engine.stats
        return {name: getattr(self._told, name) - getattr(before, name) for name in COUNTED}

    def __del__(self) -> None:
        """Stop at the next step."""
        self._engine.stop()
        self._folder.cleanup()


def _model_noter() -> Callable[[str], Awaitable[str]]:
    """Return what tells Serve that this replica has a model, so that more pictures for it come here."""
    from ray import serve

    async def model(name: str) -> str:
        return name

    noter: Callable[[str], Awaitable[str]] = serve.multiplexed(max_num_models_per_replica=_MODELS)(model)
    return noter


@dataclass(frozen=True)
class _Replicas:
    """The drawers, as the dispatcher sees them."""

    handle: Any
    places: int

    def draw(self, task: Task) -> _Stream:
        return _Stream(self.handle.options(multiplexed_model_id=task.model).draw.remote(task))

    def watch(self, jobs: Set[str]) -> None:
        # Serve calls nobody before somebody asks for the answers.
        self.handle.broadcast("watch", jobs).results(timeout_s=_ANSWERED)


@dataclass(frozen=True)
class _Stream:
    response: Any

    def __iter__(self) -> Iterator[News]:
        from ray import exceptions as ray

        lost = (
            ray.RayActorError,
            ray.WorkerCrashedError,
            ray.NodeDiedError,
            ray.ObjectLostError,
            ray.TaskCancelledError,
        )
        try:
            yield from self.response
        except lost as error:
            raise ReplicaLostError(str(error)) from error

    def cancel(self) -> None:
        self.response.cancel()
