"""What a picture needs before its first step and after its last: texts and sources to states, latents to pixels.

Everything runs in the worker's thread, on as many CPU threads as the command line would use for the same picture.
`pipeline.Model` takes the same stages for one request after the other, with events, and frees a part when its stage is
over; here many jobs are at many stages, and `Models` decides which parts of which model are in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from PIL.Image import Image
from torch import Tensor

from sanakit.base.threads import Threads, use_threads
from sanakit.pipeline.canvas import to_drawn
from sanakit.pipeline.components import PartName
from sanakit.pipeline.decoder import decode, to_picture
from sanakit.pipeline.denoiser import Denoiser, Drawing, begin, plan_denoisers
from sanakit.pipeline.encoder import encode
from sanakit.pipeline.events import Stage
from sanakit.pipeline.model import Model
from sanakit.pipeline.plan import Plan, make_plan
from sanakit.pipeline.prompt import PromptStates, encode_prompt, prompt_key, text_notes
from sanakit.pipeline.request import ImageRequest
from sanakit.pipeline.shapes import Shapes
from sanakit.pipeline.steering import LoadedControl, control_pixels
from sanakit.pipeline.threads import stage_threads
from sanakit.server.engine.models import STAGE, Models, Part
from sanakit.text import CacheInfo, LruCache


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """What all pictures of a job share. source: the latent of the picture that is changed."""

    name: str
    model: Model
    plan: Plan
    threads: Mapping[Stage, Threads]
    denoisers: tuple[Denoiser, ...] = ()
    source: Tensor | None = None
    notes: tuple[str, ...] = ()

    def begin(self, index: int) -> Drawing:
        """Picture `index` before its first step."""
        device = self.model.precision.device
        return begin(self.denoisers, self.plan, self.plan.seeds[index], device, self.source)


@dataclass(frozen=True, eq=False)
class _Words:
    """An encoded prompt, and sentences about what was cut or is not known."""

    states: PromptStates
    notes: tuple[str, ...]


class Stages:
    """Runs text encoders, encoders and decoders.

    prompts: encoded prompts that each model keeps. threads: asked for, of a CPU. keep: says which parts must stay in
    memory now.
    """

    def __init__(
        self, models: Models, prompts: int, threads: int | None, keep: Callable[[], Collection[Part]]
    ) -> None:
        self._models, self._prompts, self._asked, self._keep = models, prompts, threads, keep
        self._words: dict[str, LruCache[_Words]] = {}

    def prepare(self, name: str, model: Model, request: ImageRequest) -> Prepared:
        """Do all that comes before the first step. Raises RequestError, WeightsError or NumericsError."""
        plan = make_plan(model.spec, request)
        shapes, device = Shapes.of(model.spec), model.precision.device
        threads = stage_threads(shapes, plan.drawn.width, plan.drawn.height, device, self._asked)
        found = Prepared(name=name, model=model, plan=plan, threads=threads, notes=plan.notes)
        if not plan.steps:
            return found
        words, source = self._read(found), None
        if plan.edit is not None:
            source = self.encode(found, to_drawn(plan.edit.canvas, plan.edit.source))
        latents = [self.encode(found, control_pixels(each.control, plan.drawn)) for each in plan.controls]
        return Prepared(
            name=name, model=model, plan=plan, threads=threads, source=source, notes=(*plan.notes, *words.notes),
            denoisers=self._denoisers(found, words.states, latents),
        )  # fmt: skip

    def develop(self, prepared: Prepared, latent: Tensor | None) -> Image:
        """Return the image of a latent [1, C, h, w], or the source if nothing was drawn. Raises NumericsError."""
        plan = prepared.plan
        if latent is None:
            assert plan.edit is not None
            return plan.edit.source.copy()
        with self._at_work(prepared, "decoder"):
            return to_picture(plan, decode(prepared.model.parts.autoencoder, latent, plan.decoded))

    def encode(self, at: Prepared, pixels: Tensor) -> Tensor:
        """Return the latents [B, C, h, w] of pixels [B, 3, H, W] in -1..1. Raises NumericsError."""
        with self._at_work(at, "encoder"):
            return torch.cat([encode(at.model.parts.encoder, each) for each in pixels.split(1)])

    def prompts(self) -> CacheInfo:
        """Return hits, misses and size of the caches of all models together."""
        found = [cache.info for cache in list(self._words.values())]
        return CacheInfo(
            sum(each.hits for each in found),
            sum(each.misses for each in found),
            sum(each.size for each in found),
        )

    def _read(self, at: Prepared) -> _Words:
        cache = self._words.setdefault(at.name, LruCache[_Words](self._prompts))
        key = prompt_key(at.plan)
        found = cache.get(key)
        if found is None:
            with self._at_work(at, "text"):
                notes = text_notes(at.model.parts.text, at.model.spec, at.plan)
                found = _Words(encode_prompt(at.model.parts.text, at.model.spec, at.plan), tuple(notes))
            cache.put(key, found)
        return found

    def _denoisers(self, at: Prepared, states: PromptStates, latents: list[Tensor]) -> tuple[Denoiser, ...]:
        parts, plan = at.model.parts, at.plan
        parts.use_loras(plan.request.loras)
        if not parts.is_loaded("transformer"):  # other LoRAs were merged into it
            self._models.forget(at.name, "transformer")
        with self._at_work(at, "transformer"):
            controls = [
                LoadedControl(planned=each, network=parts.control(each.spec), latent=latent)
                for each, latent in zip(plan.controls, latents, strict=True)
            ]
            on_device = states.to(at.model.precision.device)
            return plan_denoisers(parts.transformer, on_device, plan, controls)

    @contextmanager
    def _at_work(self, at: Prepared, part: PartName) -> Iterator[None]:
        """Run a block on the threads of a part, which is in memory and has room."""
        work = self._models.work(at.name, at.plan, part)
        self._models.need(at.name, part, work, self._keep())
        with use_threads(at.threads[STAGE[part]].count), self._models.working(work):
            yield
