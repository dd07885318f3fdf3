"""The bodies of our own API, as its OpenAPI document describes them."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from sanakit.server.api.request_body import FIELDS, Inputs, RequestBody, RequestChanges
from sanakit.server.engine.jobs import Job, JobPicture, JobState

MOST_VALUES = 64
"""Values along one side of a grid; how many jobs it may have in all is a setting."""

_STRICT = ConfigDict(extra="forbid", strict=True)
_LIVE = r"^[A-Za-z0-9_-]{1,64}$"


class FaultDetail(BaseModel):
    """What is wrong. message: a sentence. type: the class of the error. field: of the request, if it is about one."""

    message: str
    type: str
    field: str | None


class FaultBody(BaseModel):
    """The body of every response that is an error."""

    error: FaultDetail


FAULTS: dict[int | str, dict[str, Any]] = {
    status: {"model": FaultBody, "description": words}
    for status, words in (
        (400, "The body can't be parsed."), (401, "No API key, or an unknown one."), (403, "The key isn't for this."),
        (404, "There is no such thing."), (413, "The body is too large."), (422, "A value is wrong."),
        (429, "The queue is full, or the key asks too often; `Retry-After` says when to come back."),
    )
}  # fmt: skip


class JobOrder(BaseModel):
    """What to draw.

    model: one of the capabilities; the first of them if it is left out. live: a token of drawing while typing: this job
    cancels older unfinished ones of the same token.
    """

    model_config = _STRICT
    model: str | None = None
    live: str | None = Field(None, pattern=_LIVE)
    inputs: Inputs | None = None
    request: RequestBody


class RecreateOrder(BaseModel):
    """What is to be other than in the job that is drawn again, such as a seed or a count."""

    model_config = _STRICT
    request: RequestChanges = Field(default_factory=RequestChanges)


class PictureBody(BaseModel):
    """A finished picture. index: its number of the count, from 0."""

    id: str
    index: int
    seed: int
    width: int
    height: int
    url: str

    @classmethod
    def of(cls, picture: JobPicture) -> Self:
        """Return the body of a picture."""
        return cls(
            id=picture.id, index=picture.index, seed=picture.seed, width=picture.width, height=picture.height,
            url=f"/api/images/{picture.id}",
        )  # fmt: skip


class JobBody(BaseModel):
    """A job. Times are seconds since the epoch, `eta` seconds from now; `step` of `total` counts all its pictures.

    notes: sentences about it, such as on words of the prompt that its model does not know.
    """

    id: str
    model: str
    request: dict[str, Any]
    owner: str
    live: str | None
    state: JobState
    created: float
    started: float | None
    finished: float | None
    step: int
    total: int
    position: int | None
    eta: float | None
    pictures: list[PictureBody]
    error: str | None
    attempts: int
    notes: list[str]

    @classmethod
    def of(cls, job: Job) -> Self:
        """Return the body of a job."""
        return cls(
            id=job.id, model=job.model, request=job.request.to_json(), owner=job.owner, live=job.live, state=job.state,
            created=job.created, started=job.started, finished=job.finished, step=job.step, total=job.total,
            position=job.position, eta=job.eta, pictures=[PictureBody.of(each) for each in job.pictures],
            error=job.error, attempts=job.attempts, notes=list(job.notes),
        )  # fmt: skip


class JobList(BaseModel):
    """Jobs, the newest first."""

    jobs: list[JobBody]


class Axis(BaseModel):
    """One side of a grid: a field of the request, and the values that it takes."""

    model_config = _STRICT
    field: str = Field(json_schema_extra={"enum": list(FIELDS)})
    values: list[Any] = Field(min_length=1, max_length=MOST_VALUES)


class GridOrder(BaseModel):
    """The same request for every pair of values of two fields."""

    model_config = _STRICT
    model: str | None = None
    inputs: Inputs | None = None
    request: RequestBody
    x: Axis
    y: Axis | None = None


class GridBody(BaseModel):
    """The jobs of a grid: a row for each value of y, in it a job for each value of x."""

    jobs: list[list[JobBody]]


class ReadBody(BaseModel):
    """What a picture was made from. notes: what another program wrote and means nothing here."""

    request: dict[str, Any]
    model: str | None
    notes: list[str]


class ModelDefaults(BaseModel):
    """What a model takes for fields that are left open."""

    width: int
    height: int
    steps: int
    guidance: float
    solver: str


class ModelBody(BaseModel):
    """A model that is offered. words: those it knows, if it knows few. few_steps: made for one to four steps."""

    name: str
    default: bool
    defaults: ModelDefaults
    solvers: list[str]
    few_steps: bool
    about: str | None
    words: list[str] | None
    edit: bool
    max_side: int


class Offer(BaseModel):
    """Something that a request may ask for by its name."""

    name: str


class LimitsBody(BaseModel):
    """Jobs that wait, pictures of a job, steps, pixels of a picture, bytes of a body, jobs of a grid: at most.

    keep_days, keep_pictures: how long finished jobs stay, and how many newer pictures they outlast; null for ever.
    """

    queue: int
    count: int
    steps: int
    pixels: int
    body: int
    cells: int
    keep_days: float | None
    keep_pictures: int | None


class ToyboxBody(BaseModel):
    """The words of Toybox, for building a scene.

    floors, lights: word -> how a prompt says it. shapes: word -> its plural. most_objects: of a scene.
    """

    shapes: dict[str, str]
    colours: list[str]
    materials: list[str]
    sizes: list[str]
    relations: list[str]
    floors: dict[str, str]
    lights: dict[str, str]
    most_objects: int


class Capabilities(BaseModel):
    """What this server offers. toybox: null unless it offers a model of that world."""

    version: str
    models: list[ModelBody]
    loras: list[Offer]
    controls: list[Offer]
    annotators: list[str]
    limits: LimitsBody
    toybox: ToyboxBody | None
