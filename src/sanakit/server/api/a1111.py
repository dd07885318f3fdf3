"""The API of the AUTOMATIC1111 web UI below `/sdapi/v1`, as far as its clients need it to draw.

Its progress and its interrupt know one job at a time: here they mean the jobs of whoever asks.
"""

from __future__ import annotations

import json
import time
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from sanakit.base.echo import as_utf8, quoted
from sanakit.base.errors import RequestError
from sanakit.flow import SOLVERS
from sanakit.pipeline.inputs import InputImage
from sanakit.pipeline.loras import LoRAFile
from sanakit.pipeline.parameters import write_parameters
from sanakit.pipeline.request import ImageRequest
from sanakit.server.api.a1111_bodies import (
    A1111Fault,
    CheckpointRow,
    ImageToImage,
    LoraRow,
    Options,
    Order,
    Pictures,
    Progress,
    ProgressState,
    SamplerRow,
    TextToImage,
    read_order,
)
from sanakit.server.api.events import finish, pictures_of
from sanakit.server.api.images import decode_base64, encode_base64
from sanakit.server.engine.jobs import Job, JobState
from sanakit.server.service import Caller, Drawer, Service, Viewer

_FAULTS: dict[int | str, dict[str, Any]] = {
    status: {"model": A1111Fault} for status in (401, 403, 404, 409, 413, 422, 429, 500)
}
GLIMPSE_SECONDS = 0.5
"""How long `/progress` waits for a preview."""

router = APIRouter(prefix="/sdapi/v1", tags=["a1111"], responses=_FAULTS)


@router.post("/txt2img")
async def text_to_image(body: TextToImage, caller: Drawer, request: Request) -> Pictures:
    """Draw pictures from a prompt."""
    return await _draw(body, {}, caller, request)


@router.post("/img2img")
async def image_to_image(body: ImageToImage, caller: Drawer, request: Request) -> Pictures:
    """Change a picture, or what is white in its mask."""
    inputs = await run_in_threadpool(_inputs, body, caller.service.settings.input_pixels)
    return await _draw(body, inputs, caller, request)


def _inputs(body: ImageToImage, most_pixels: int) -> dict[str, Any]:
    inputs: dict[str, Any] = {"source": decode_base64(body.init_images[0], "init_images", most_pixels)}
    if body.denoising_strength is not None:
        inputs["strength"] = body.denoising_strength
    if body.mask is not None:
        mask = decode_base64(body.mask, "mask", most_pixels)
        if body.inpainting_mask_invert:
            mask = InputImage.of(mask.image.convert("L").point(lambda level: 255 - level), "mask")
        inputs["mask"] = mask
    return inputs


async def _draw(body: TextToImage, inputs: dict[str, Any], caller: Caller, request: Request) -> Pictures:
    order = read_order(body)
    if "source" in inputs and {"width", "height"} & order.fields.keys():
        size = inputs["source"].image.size
        if size != (order.fields.get("width"), order.fields.get("height")):
            order.notes.append(
                f"the result has the size of the picture, {size[0]}x{size[1]}; it is drawn at yours."
            )
    job = await run_in_threadpool(_submit, order, inputs, caller)
    job = await finish(caller.service.engine, job, request)
    return await run_in_threadpool(_answer, body, order, job, caller.service)


def _submit(order: Order, inputs: dict[str, Any], caller: Caller) -> Job:
    loras = tuple(_lora(caller.service, name, weight) for name, weight in order.loras)
    request = ImageRequest(**order.fields, **inputs, loras=loras)
    return caller.submit([request], order.model or caller.checkpoint)[0]


def _lora(service: Service, name: str, weight: float) -> LoRAFile:
    """Return a LoRA by its name, or by its name without the suffix, as prompts have it."""
    catalogue = service.engine.catalogue
    full = next((known for known in catalogue.loras if known.rpartition(".")[0] == name), name)
    return catalogue.lora(full, weight)


def _answer(body: TextToImage, order: Order, job: Job, service: Service) -> Pictures:
    """Return the pictures that are there: an interrupted job gives those it had finished, as theirs does."""
    done = pictures_of(job) if job.state != "cancelled" else job.pictures
    texts = [write_parameters(job.request.picture(picture.index), {"Model": job.model}) for picture in done]
    request = job.request
    info = {
        "prompt": request.prompt, "negative_prompt": request.negative, "seed": request.seed,
        "all_seeds": [picture.seed for picture in done], "width": request.width, "height": request.height,
        "sampler_name": request.solver, "steps": request.steps, "cfg_scale": request.guidance,
        "batch_size": request.count, "sd_model_name": job.model, "infotexts": texts, "job": job.id,
        "notes": [*order.notes, *job.notes],
    }  # fmt: skip
    images = [encode_base64(service.engine.picture(picture.id)) for picture in done]
    return Pictures(images=images, parameters=_parameters(body), info=json.dumps(info))


def _parameters(body: TextToImage) -> dict[str, Any]:
    """Return the plain fields of a body, as they were read."""
    values = body.model_dump(
        include=set(type(body).model_fields) - {"init_images", "mask", "override_settings"}
    )
    return {name: as_utf8(value) if isinstance(value, str) else value for name, value in values.items()}


@router.get("/progress")
def progress(caller: Viewer, skip_current_image: bool = False) -> Progress:
    """Tell how far the oldest unfinished job of the caller is."""
    jobs = [*_unfinished(caller, "running"), *_unfinished(caller, "queued")]
    if not jobs:
        return Progress(progress=0, eta_relative=0, state=ProgressState())
    job, steps = jobs[0], max(1, jobs[0].steps)
    shown = None if skip_current_image or job.state == "queued" else _glimpse(caller.service, job)
    state = ProgressState(
        job=job.id,
        job_count=len(jobs),
        job_no=job.step // steps,
        sampling_step=job.step % steps,
        sampling_steps=steps,
    )
    return Progress(
        progress=job.step / max(1, job.total), eta_relative=job.eta or 0, state=state, current_image=shown
    )


def _glimpse(service: Service, job: Job) -> str | None:
    """Return the next preview of a job; None if none comes soon."""
    subscription = service.engine.subscribe(job.id, previews=True)
    try:
        until = time.monotonic() + GLIMPSE_SECONDS
        while (event := subscription.next(max(0.0, until - time.monotonic()))) is not None:
            if event.preview is not None:
                return encode_base64(event.preview)
        return None
    finally:
        subscription.close()


def _unfinished(caller: Caller, state: JobState) -> list[Job]:
    """Return the jobs of the caller in a state, the oldest first."""
    return list(reversed(caller.service.engine.list(owner=caller.owner, state=state, limit=200)))


@router.post("/interrupt")
def interrupt(caller: Drawer) -> dict[str, Any]:
    """End what is drawn for the caller at its next step."""
    for job in _unfinished(caller, "running"):
        caller.service.engine.cancel(job.id)
    return {}


@router.get("/sd-models")
def list_checkpoints(caller: Viewer) -> list[CheckpointRow]:
    """List the models that are offered."""
    models = caller.service.engine.catalogue.models
    return [CheckpointRow(title=name, model_name=name, filename=name) for name in models]


@router.get("/options")
def get_options(caller: Viewer) -> Options:
    """Return the model that draws for the caller if a request names none."""
    return Options(sd_model_checkpoint=caller.checkpoint)


@router.post("/options")
def set_options(body: Options, caller: Drawer) -> dict[str, Any]:
    """Choose the model that draws for the caller if a request names none; other settings are refused."""
    if body.model_extra:
        raise RequestError(
            f"there is no setting {quoted(next(iter(body.model_extra)))} here: only sd_model_checkpoint"
        )
    caller.service.engine.catalogue.model(body.sd_model_checkpoint)
    caller.service.checkpoints[caller.owner] = body.sd_model_checkpoint
    return {}


@router.get("/samplers")
def list_samplers(caller: Viewer) -> list[SamplerRow]:
    """List the solvers."""
    return [SamplerRow(name=name) for name in SOLVERS]


@router.get("/loras")
def list_loras(caller: Viewer) -> list[LoraRow]:
    """List the LoRAs that are offered."""
    names = caller.service.engine.catalogue.loras
    return [LoraRow(name=name.rpartition(".")[0] or name, alias=name, path=name) for name in names]


@router.get("/schedulers", include_in_schema=False)
@router.get("/upscalers", include_in_schema=False)
@router.get("/prompt-styles", include_in_schema=False)
@router.get("/sd-vae", include_in_schema=False)
def list_nothing(caller: Viewer) -> list[dict[str, Any]]:
    """List what there is none of here; clients ask when they start."""
    return []
