"""What the routes of all three APIs share: the engine, who asks, and the way from a request to a counted job."""

from __future__ import annotations

import base64
import binascii
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from sanakit.pipeline.request import ImageRequest
from sanakit.server.engine.engine import Engine
from sanakit.server.engine.jobs import Job, JobSpec
from sanakit.server.keys import Key, KeyStore, Scope
from sanakit.server.metrics import Metrics
from sanakit.server.rates import Rates
from sanakit.server.refusals import NoKeyError, ScopeError
from sanakit.server.settings import Settings
from sanakit.server.signed_tokens import SignedTokens
from sanakit.server.traces import JobSpans

_LOG = logging.getLogger("sanakit.server.jobs")
_BEARER = HTTPBearer(auto_error=False, description="An API key, once there is one: `sanakit keys add NAME`.")


@dataclass(frozen=True, kw_only=True)
class Service:
    """An engine behind its settings, and what one server keeps in memory.

    keys         those of the data folder
    tokens       signed, for pictures where no key can be sent
    rates        jobs that each key has asked for of late
    stopping     set when the server ends
    started      seconds since the epoch
    checkpoints  owner -> the model that a client of the A1111 tradition chose
    spans        where jobs are traced, if they are
    """

    engine: Engine
    settings: Settings
    keys: KeyStore
    tokens: SignedTokens
    rates: Rates = field(default_factory=Rates)
    metrics: Metrics = field(default_factory=Metrics)
    stopping: threading.Event = field(default_factory=threading.Event)
    started: float = field(default_factory=time.time)
    checkpoints: dict[str, str] = field(default_factory=dict)
    spans: JobSpans | None = None

    @property
    def is_open(self) -> bool:
        """Whether everybody may do everything: only this machine can ask, and no keys were made.

        In public there were keys at the start, and the last one may have been removed since.
        """
        return not self.settings.is_public and not self.keys.all()


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks. key: None where no keys were made, so that everybody on this machine may do everything."""

    service: Service
    key: Key | None

    @property
    def owner(self) -> str:
        """The owner of the jobs that this caller makes."""
        return "" if self.key is None else self.key.id

    @property
    def sees(self) -> str | None:
        """Whose jobs this caller sees; None for everybody's."""
        return None if self.key is None or self.key.may("read") else self.key.id

    @property
    def changes(self) -> str | None:
        """Whose jobs this caller cancels and deletes; None for everybody's."""
        return None if self.key is None or self.key.may("admin") else self.key.id

    @property
    def checkpoint(self) -> str:
        """The model that draws if a request of the A1111 tradition names none."""
        return self.service.checkpoints.get(self.owner, self.service.engine.catalogue.default)

    def submit(
        self, requests: Sequence[ImageRequest], model: str | None = None, live: str | None = None
    ) -> list[Job]:
        """Ask for jobs, for all of them or none. model: None for the first that is offered.

        Raises RateError, and as `Engine.submit`.
        """
        engine, rate = self.service.engine, self.service.settings.rate
        rate = rate if self.key is None or self.key.rate is None else self.key.rate
        self.service.rates.take(self.owner, rate, len(requests))
        name, jobs = model or engine.catalogue.default, list[Job]()
        try:
            for request in requests:
                jobs.append(engine.submit(JobSpec(model=name, request=request, owner=self.owner, live=live)))
        except BaseException:
            for job in jobs:
                engine.delete(job.id)
            raise
        for job in jobs:
            _LOG.info("accepted", extra={"job": job.id, **({"key": self.owner} if self.owner else {})})
        if self.service.spans is not None:
            self.service.spans.follow(jobs)
        return jobs


def get_service(request: Request) -> Service:
    """Return the service of an app."""
    service: Service = request.app.state.service
    return service


ServiceOf = Annotated[Service, Depends(get_service)]
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]


def find_caller(request: Request, service: Service, bearer: HTTPAuthorizationCredentials | None) -> Caller:
    """Return who sends a request. Raises NoKeyError."""
    if service.is_open:
        return Caller(service=service, key=None)
    text = bearer.credentials if bearer else _password(request.headers.get("authorization", ""))
    key = None if text is None else service.keys.find(text)
    if key is None:
        raise NoKeyError("this server asks for an API key: send it as `Authorization: Bearer KEY`")
    request.state.key = key.id  # for the log
    return Caller(service=service, key=key)


def _caller(*scopes: Scope) -> Callable[..., Caller]:
    """Return a dependency that lets in whoever has one of some scopes. It raises NoKeyError or ScopeError."""

    def check(request: Request, service: ServiceOf, bearer: Bearer) -> Caller:
        caller = find_caller(request, service, bearer)
        key = caller.key
        if key is not None and not any(map(key.may, scopes)):
            raise ScopeError(f"the key {key.name} is not for this: its scopes are {', '.join(key.scopes)}")
        return caller

    return check


Drawer = Annotated[Caller, Depends(_caller("draw"))]
"""Whoever may ask for pictures."""

Viewer = Annotated[Caller, Depends(_caller("draw", "read"))]
"""Whoever has a key."""

Overseer = Annotated[Caller, Depends(_caller("read"))]
"""Whoever sees everything."""


def _password(header: str) -> str | None:
    """Return the key that clients of the A1111 tradition send: the password of any user."""
    kind, _, value = header.partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        return base64.b64decode(value, validate=True).decode("utf-8", "surrogateescape").partition(":")[2]
    except (binascii.Error, ValueError):
        return None
