"""`Model`: requests in, events out. The order of the stages is here; each stage has a file of its own.

plan.py -> prompt.py -> denoiser.py (which walks with flow's solvers) -> decoder.py
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor

from sanakit import __version__
from sanakit.base.errors import RequestError
from sanakit.base.precision import Precision
from sanakit.base.sizes import Size
from sanakit.base.threads import check_threads
from sanakit.base.units import dtype_name
from sanakit.pipeline.canvas import to_drawn
from sanakit.pipeline.components import Components, PartName, fingerprint
from sanakit.pipeline.decoder import decode, to_picture
from sanakit.pipeline.denoiser import denoise_together
from sanakit.pipeline.encoder import encode
from sanakit.pipeline.engine import Engine, choose_engine, int8_remark
from sanakit.pipeline.events import (
    Cancelled,
    Done,
    Event,
    Note,
    PictureDone,
    StageStarted,
    Started,
    Step,
)
from sanakit.pipeline.memory import check_fit
from sanakit.pipeline.merged import check_swap
from sanakit.pipeline.plan import Plan, defaults_of, make_plan
from sanakit.pipeline.prompt import PromptStates, encode_prompt, prompt_key, text_notes
from sanakit.pipeline.request import Defaults, ImageRequest
from sanakit.pipeline.shapes import Shapes
from sanakit.pipeline.steering import LoadedControl, control_pixels
from sanakit.pipeline.threads import StageTimer, stage_threads
from sanakit.text import CHI, LruCache, final_prompt
from sanakit.weights import Hints, ModelSpec, int8_layers

_PROMPTS_KEPT = 64
MAX_TOGETHER = 1024
_PART: dict[str, PartName] = {
    "text": "text",
    "encode": "encoder",
    "denoise": "transformer",
    "decode": "decoder",
}
Stop = Callable[[], bool]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The arguments that a model was loaded by, for the record in its images; see `load`."""

    name: str = ""
    parts: str | None = None
    decoder: str | None = None
    hints: Hints = field(default_factory=Hints)
    ignored: tuple[str, ...] = ()

    def provenance(self, spec: ModelSpec, precision: Precision, engine: Engine) -> dict[str, str]:
        """Return how images of the model are made, as texts: these arguments if given, weights and machine."""
        given = {
            "model": self.name or str(spec.folder),
            "parts": self.parts,
            "decoder": self.decoder,
            "variant": spec.variant,
            "ignore_config_fields": ",".join(self.ignored) or None,
            **self.hints.texts,
        }
        return {name: value for name, value in given.items() if value is not None} | {
            "weights": fingerprint(spec),
            "version": __version__,
            "torch": torch.__version__,
            "device": precision.device.type,
            "dtype": dtype_name(precision.dtype),
            "engine": engine.name,
        }


class Model:
    """A model that draws. Safe to keep: parts stay loaded between requests unless `frugal`.

    frugal: free every part as soon as its stage is over. None decides by the memory that is free at each request.
    origin: what it was loaded by. fast: how it runs, see `engine.choose_engine`.
    threads: of a CPU, for every stage; None chooses by the size of the work (see `threads.stage_threads`). torch's
    number is set while a stage works, and set back before each event.
    together: images of a count that are drawn in one batch, which is faster; their sums round otherwise than alone.
    swap_loras: LoRAs stay beside the weights, so that those of the next request take their place in milliseconds, but
    steps take longer; otherwise they are merged into the weights, and other LoRAs load the transformer again.
    """

    def __init__(
        self,
        spec: ModelSpec,
        precision: Precision,
        *,
        origin: Origin | None = None,
        frugal: bool | None = None,
        fast: str | None = None,
        threads: int | None = None,
        swap_loras: bool = False,
        together: int = 1,
    ) -> None:
        self.spec = spec
        self.precision = precision
        self.origin = origin or Origin()
        self.name = self.origin.name or str(spec.folder)
        self.frugal = frugal
        self.threads = check_threads(threads)
        self.together = check_together(together)
        self.engine = choose_engine(fast, precision)
        self.parts = Components(spec, precision, self.engine, swap=check_swap(swap_loras, self.engine))
        # Outlives the text encoder, which frugal models release.
        self._prompts = LruCache[PromptStates](_PROMPTS_KEPT)
        self._frugal_by_memory = False
        self._warned: set[Size] = set()
        self._notes = _first_notes(spec, precision, self.engine)  # for the next request

    @property
    def defaults(self) -> Defaults:
        """The values of open fields of a request."""
        return defaults_of(self.spec)

    @cached_property
    def provenance(self) -> dict[str, str]:
        """How images of this model are made, as texts for `Record`."""
        made = self.origin.provenance(self.spec, self.precision, self.engine)
        return made | {"loras": "beside"} if self.parts.swap else made  # sums round otherwise than merged

    def final_prompt(self, request: ImageRequest) -> str:
        """Return the very text that the text encoder reads for a request."""
        instruction = CHI if self.spec.instruct and request.chi else None
        return final_prompt(request.prompt, instruction, self.spec.dialect.lowercase)

    def images(self, request: ImageRequest) -> list[Image.Image]:
        """Return the images of a request, without the events."""
        return [event.image for event in self.generate(request) if isinstance(event, PictureDone)]

    def generate(self, request: ImageRequest, stop: Stop | None = None) -> Iterator[Event]:
        """Draw a request, one image after the other, and yield events (see `events.py`).

        stop: asked between steps; once it says True, `Cancelled` is the last event.
        Raises RequestError before anything is loaded if the request doesn't fit the model or a stage can't fit into
        memory, and before anything is drawn if the prompt is too long; WeightsError while loading, and NumericsError
        for NaN or Inf.
        """
        plan = make_plan(self.spec, request)
        self._check_memory(plan)
        return self._run(plan, stop or (lambda: False))

    def _run(self, plan: Plan, stop: Stop) -> Iterator[Event]:
        shapes, device = Shapes.of(self.spec), self.precision.device
        timer = StageTimer(stage_threads(shapes, plan.drawn.width, plan.drawn.height, device, self.threads))
        yield Started(request=plan.request, drawn_width=plan.drawn.width, drawn_height=plan.drawn.height)
        notes, self._notes = [*self._notes, *plan.notes], []
        yield from (Note(message=message) for message in notes)
        if plan.steps == 0:
            yield from self._unchanged(plan)
            return
        prompt = yield from self._encode(plan, timer)
        source = yield from self._encode_source(plan, timer)
        controls = yield from self._encode_controls(plan, timer)
        finished = 0
        while finished < len(plan.seeds):
            group = range(finished, min(finished + self.together, len(plan.seeds)))
            latents = yield from self._denoise(plan, prompt, group, timer, stop, source, controls)
            for index, latent in zip(group, latents, strict=False):  # there are none if the caller stopped
                if stop():
                    break
                image = yield from self._decode(plan, latent, index, timer)
                yield self._finished(plan, index, image, len(group))
                finished += 1
            if finished < group.stop:
                yield Cancelled(finished=finished, timings=timer.seconds)
                return
        yield Done(timings=timer.seconds)

    def _finished(self, plan: Plan, index: int, image: Image.Image, together: int = 1) -> PictureDone:
        return PictureDone(
            index=index, seed=plan.seeds[index], image=image, request=plan.request.picture(index),
            made={"together": str(together)} if together > 1 else {},
        )  # fmt: skip

    def _encode(self, plan: Plan, timer: StageTimer) -> Generator[Event, None, PromptStates]:
        key = prompt_key(plan)
        prompt = self._prompts.get(key)
        if prompt is None:
            yield from self._load("text", timer)
            yield StageStarted(stage="text")
            with timer.timed("text"):
                notes = text_notes(self.parts.text, self.spec, plan)
                prompt = encode_prompt(self.parts.text, self.spec, plan)
            self._prompts.put(key, prompt)
            yield timer.done("text")
            yield from (Note(message=message) for message in notes)
        self._free("text")
        return prompt

    def _unchanged(self, plan: Plan) -> Iterator[Event]:
        """The source itself, as an edit of strength 0 asks for it."""
        assert plan.edit is not None
        for index in range(len(plan.seeds)):
            yield self._finished(plan, index, plan.edit.source.copy())
        yield Done(timings={})

    def _encode_source(self, plan: Plan, timer: StageTimer) -> Generator[Event, None, Tensor | None]:
        """Return the latent of the picture that is changed, if one is."""
        if plan.edit is None:
            return None
        latent = yield from self._encode_pixels(to_drawn(plan.edit.canvas, plan.edit.source), timer)
        if not plan.controls:
            self._free("encoder")
        return latent

    def _encode_controls(self, plan: Plan, timer: StageTimer) -> Generator[Event, None, list[Tensor]]:
        """Return the latents of the control pictures, in the order of the plan."""
        self.parts.release_controls([each.spec for each in plan.controls])
        latents = []
        for each in plan.controls:
            latents.append((yield from self._encode_pixels(control_pixels(each.control, plan.drawn), timer)))
        if plan.controls:
            self._free("encoder")
        return latents

    def _encode_pixels(self, pixels: Tensor, timer: StageTimer) -> Generator[Event, None, Tensor]:
        """Return the latent of a picture [1, 3, H, W]."""
        yield from self._load("encoder", timer)
        yield StageStarted(stage="encode")
        with timer.timed("encode"):
            latent = encode(self.parts.encoder, pixels)
        yield timer.done("encode")
        return latent

    def _denoise(
        self,
        plan: Plan,
        prompt: PromptStates,
        group: range,
        timer: StageTimer,
        stop: Stop,
        source: Tensor | None,
        controls: Sequence[Tensor],
    ) -> Generator[Event, None, list[Tensor]]:
        """Return the latents [1, C, h, w] of a group of images, none if the caller stopped."""
        index = group.start
        self.parts.use_loras(plan.request.loras)
        yield from self._load("transformer", timer, index)
        yield from self._load_controls(plan, timer, index)
        yield StageStarted(stage="denoise", index=index, total=plan.steps)
        states = denoise_together(
            self.parts.transformer, prompt, plan, plan.seeds[group.start : group.stop], self.precision.device, source,
            [
                LoadedControl(planned=planned, network=self.parts.control(planned.spec), latent=latent)
                for planned, latent in zip(plan.controls, controls, strict=True)
            ],
        )  # fmt: skip
        for step in range(plan.steps):
            if stop():
                return []
            with timer.timed("denoise"):
                found = next(states)
            yield Step(
                stage="denoise", index=step, total=plan.steps, latent=torch.cat([state.x0 for state in found])
            )
        yield timer.done("denoise", index)
        self._free("transformer")
        return [state.x for state in found]

    def _decode(
        self, plan: Plan, latent: Tensor, index: int, timer: StageTimer
    ) -> Generator[Event, None, Image.Image]:
        yield from self._load("decoder", timer, index)
        yield StageStarted(stage="decode", index=index)
        with timer.timed("decode"):
            image = to_picture(plan, decode(self.parts.autoencoder, latent, plan.decoded))
        yield timer.done("decode", index)
        self._free("decoder")
        return image

    def _load(self, name: PartName, timer: StageTimer, index: int = 0) -> Iterator[Event]:
        if not self.parts.is_loaded(name):
            yield StageStarted(stage="load", index=index)
            with timer.timed("load"):
                self.parts.load(name)
            yield timer.done("load", index)

    def _load_controls(self, plan: Plan, timer: StageTimer, index: int) -> Iterator[Event]:
        for each in plan.controls:
            if not self.parts.has_control(each.spec):
                yield StageStarted(stage="load", index=index)
                with timer.timed("load"):
                    self.parts.control(each.spec)
                yield timer.done("load", index)

    def _free(self, name: PartName) -> None:
        if self.frugal:
            self.parts.release(name)
            if name == "transformer":
                self.parts.release_controls()

    def _check_memory(self, plan: Plan) -> None:
        """Refuse what can't fit, and decide `frugal` unless somebody has; parts that are loaded count as free."""
        drawn = plan.drawn
        loaded = [stage for stage, part in _PART.items() if self.parts.is_loaded(part)]
        if not all(self.parts.has_control(each.spec) for each in plan.controls):
            loaded = [stage for stage in loaded if stage != "denoise"]
        fit = check_fit(
            Shapes.of(self.spec), drawn.width, drawn.height, self.precision,
            plan.branches * min(self.together, len(plan.seeds)), loaded,
            encode=plan.edit is not None or bool(plan.controls),
            controls=[each.spec.config for each in plan.controls],
            beside=self.parts.bytes_beside(plan.request.loras),
        )  # fmt: skip
        if fit.warning is not None and drawn not in self._warned:
            self._warned.add(drawn)
            self._notes.append(fit.warning)
        self._frugal_by_memory = self._frugal_by_memory or self.frugal is None
        if (
            self._frugal_by_memory and not self.frugal
        ):  # once parts had to be freed after their stage, they always are
            self.frugal = not fit.at_once
            for name in _PART.values() if self.frugal else ():
                self.parts.release(name)


def check_together(count: int) -> int:
    """Return a number of images to draw together. Raises RequestError if it makes no sense."""
    if not 1 <= count <= MAX_TOGETHER:
        raise RequestError(f"together must be from 1 to {MAX_TOGETHER}, not {count}")
    return count


def _first_notes(spec: ModelSpec, precision: Precision, engine: Engine) -> list[str]:
    """Sentences that the first request begins with: what was read past in files, and whether int8 saves time."""
    in_int8 = engine.quantise == "int8" or bool(int8_layers(spec.transformer_source))
    remark = int8_remark(precision) if in_int8 else None
    return list(spec.notes) if remark is None else [*spec.notes, remark]
