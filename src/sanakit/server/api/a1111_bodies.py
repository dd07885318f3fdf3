"""The bodies of the AUTOMATIC1111 web UI's API, and what becomes of their words here.

https://github.com/AUTOMATIC1111/stable-diffusion-webui, `modules/api/models.py`. Clients send dozens of fields, most of
them at a default. What means something here is used; every other one that asks for something is told in `info`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from sanakit.base.errors import RequestError
from sanakit.base.sizes import nearest_side
from sanakit.flow import SOLVERS
from sanakit.pipeline.foreign import usual_sampler
from sanakit.pipeline.request import MAX_SIDE
from sanakit.server.api.request_body import MOST_TEXT

LORA_TAG = re.compile(r"<lora:([^:<>]{1,200})(?::(-?[0-9.]{1,12}))?(?::[^<>]{0,40})?>")
_SEEDS = 2**32
_AUTOMATIC = ("", "Automatic")
_HARMLESS: tuple[object, ...] = (
    None,
    "",
    False,
    0,
    "Automatic",
    "None",
    "Use same sampler",
    "Use same scheduler",
)
"""Values of fields that ask for nothing."""

_IDLE = {
    "send_images", "save_images", "do_not_save_samples", "do_not_save_grid", "override_settings_restore_afterwards",
    "script_args", "include_init_images", "disable_extra_networks", "force_task_id", "infotext", "comments",
    "subseed", "seed_resize_from_h", "seed_resize_from_w", "seed_enable_extras", "s_tmax", "s_noise", "hr_scale",
    "initial_noise_multiplier", "scheduler", "inpainting_fill", "inpaint_full_res_padding", "mask_round",
    "firstpass_image",
}  # fmt: skip
"""Fields that change no picture here, whatever they hold, or nothing unless another one is on."""


class TextToImage(BaseModel):
    """What `/txt2img` reads; all other fields are told in `info` unless they ask for nothing."""

    model_config = ConfigDict(extra="allow")
    prompt: str = Field("", max_length=MOST_TEXT)
    negative_prompt: str | None = Field("", max_length=MOST_TEXT)
    seed: int | None = Field(-1, description="-1 for a random one.")
    width: int | None = Field(
        None, le=MAX_SIDE, description="In pixels; the nearest multiple of 32 is drawn."
    )
    height: int | None = Field(None, le=MAX_SIDE)
    steps: int | None = None
    cfg_scale: float | None = None
    sampler_name: str | None = None
    sampler_index: str | None = Field(None, description="The old name of sampler_name.")
    batch_size: int | None = Field(1, ge=1)
    n_iter: int | None = Field(1, ge=1)
    override_settings: dict[str, Any] | None = None


class ImageToImage(TextToImage):
    """What `/img2img` reads besides."""

    init_images: list[str] = Field(min_length=1, max_length=1, description="One picture in base64.")
    mask: str | None = Field(None, description="In base64; white where to draw anew.")
    inpainting_mask_invert: int | None = 0
    denoising_strength: float | None = 0.75


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a body asks for. fields: of our request. loras: names and weights. model: None for the default."""

    fields: dict[str, Any]
    loras: tuple[tuple[str, float], ...] = ()
    model: str | None = None
    notes: list[str] = field(default_factory=list)


def read_order(body: TextToImage) -> Order:
    """Return what a body asks for. Raises RequestError."""
    notes = list(_passed_over(body))
    settings = dict(body.override_settings or {})
    model = settings.pop("sd_model_checkpoint", None)
    notes += [f"override_settings has no {name[:60]!r} here." for name in settings]
    if model is not None and not isinstance(model, str):
        raise RequestError("sd_model_checkpoint is the name of a model")
    seed = body.seed if body.seed is not None and body.seed >= 0 else secrets.randbelow(_SEEDS)
    given = {
        "steps": body.steps, "guidance": body.cfg_scale, "solver": _solver(body, notes),
        "width": _side("width", body.width, notes), "height": _side("height", body.height, notes),
    }  # fmt: skip
    fields = {
        "prompt": LORA_TAG.sub("", body.prompt).strip(), "negative": body.negative_prompt or "", "seed": seed,
        "count": (body.batch_size or 1) * (body.n_iter or 1),
        **{name: value for name, value in given.items() if value is not None},
    }  # fmt: skip
    return Order(fields=fields, loras=tuple(_loras(body.prompt)), model=model or None, notes=notes)


def _loras(prompt: str) -> Iterator[tuple[str, float]]:
    """Return the LoRAs that are named in a prompt, such as `<lora:style:0.8>`."""
    for tag in LORA_TAG.finditer(prompt):
        try:
            yield tag[1], 1.0 if tag[2] is None else float(tag[2])
        except ValueError:
            raise RequestError(f"the weight in {tag[0][:80]!r} is no number") from None


def _solver(body: TextToImage, notes: list[str]) -> str | None:
    name = body.sampler_name or body.sampler_index
    if name is None or name in _AUTOMATIC:
        return None
    solver = name if name in SOLVERS else usual_sampler(name)
    if solver != name:
        notes.append(f"the sampler {name[:60]!r} is read as {solver or 'the own one of the model'}.")
    return solver


def _side(name: str, side: int | None, notes: list[str]) -> int | None:
    """Return the nearest side that is drawn."""
    if side is None or side <= 0:
        return None
    near = nearest_side(side)
    if near != side:
        notes.append(f"{name} {side} is read as {near}, a multiple of 32.")
    return near


def _passed_over(body: TextToImage) -> Iterator[str]:
    """Return a sentence for each field that asks for something that isn't done here."""
    for name, value in (body.model_extra or {}).items():
        if name not in _IDLE and value not in _HARMLESS and value not in ([], {}):
            yield f"{name[:60]} has no effect here."


class Pictures(BaseModel):
    """Pictures as base64 PNGs. info: JSON text, with the seeds, and notes on what has no effect here."""

    images: list[str]
    parameters: dict[str, Any]
    info: str


class ProgressState(BaseModel):
    """Where the job stands."""

    skipped: bool = False
    interrupted: bool = False
    stopping_generation: bool = False
    job: str = ""
    job_count: int = 0
    job_timestamp: str = "0"
    job_no: int = 0
    sampling_step: int = 0
    sampling_steps: int = 0


class Progress(BaseModel):
    """How far the oldest unfinished job of the caller is: 0 to 1, and seconds that are left."""

    progress: float
    eta_relative: float
    state: ProgressState
    current_image: str | None = None
    textinfo: str | None = None


class CheckpointRow(BaseModel):
    """A model that is offered. Files of the server are nobody's business: the name stands for them."""

    title: str
    model_name: str
    hash: str | None = None
    sha256: str | None = None
    filename: str
    config: str | None = None


class SamplerRow(BaseModel):
    """A solver."""

    name: str
    aliases: list[str] = []
    options: dict[str, str] = {}


class LoraRow(BaseModel):
    """A LoRA that is offered."""

    name: str
    alias: str
    path: str
    metadata: dict[str, Any] = {}


class Options(BaseModel):
    """The settings that exist here: the model that draws for the caller if a request names none."""

    model_config = ConfigDict(extra="allow")
    sd_model_checkpoint: str


class A1111Fault(BaseModel):
    """The body of every response that is an error."""

    error: str
    detail: str
    body: str
    errors: str
