"""`Model`: requests in, events out, and what stays between requests: networks, token states of prompts, notes.

plan.py decides, generation.py runs the stages: prompt.py -> denoiser.py (which walks with flow's solvers) -> decoder.py
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from PIL import Image

from sanakit.base.errors import RequestError
from sanakit.base.precision import Precision
from sanakit.base.sizes import Size
from sanakit.base.threads import check_threads
from sanakit.pipeline.components import Components, PartName
from sanakit.pipeline.engine import Engine, choose_engine, int8_remark
from sanakit.pipeline.events import Event, Note, PictureDone, Started
from sanakit.pipeline.generation import Generation, Stop
from sanakit.pipeline.memory import available_bytes, check_fit, estimate, fits_together, total_bytes
from sanakit.pipeline.merged import check_swap
from sanakit.pipeline.origin import Origin
from sanakit.pipeline.plan import Plan, defaults_of, make_plan
from sanakit.pipeline.prompt import PromptStates
from sanakit.pipeline.request import Defaults, ImageRequest
from sanakit.pipeline.shapes import Shapes
from sanakit.pipeline.threads import StageTimer, stage_threads
from sanakit.text import CHI, LruCache, final_prompt
from sanakit.weights import ModelSpec, int8_layers

_PROMPTS_KEPT = 64
MAX_TOGETHER = 1024
_TOGETHER = 8  # more in a batch hardly gain on a CPU, and keep those who wait for the first ones longer
_PART: dict[str, PartName] = {
    "text": "text",
    "encode": "encoder",
    "denoise": "transformer",
    "decode": "decoder",
}
"""The network of each stage."""


class Model:
    """A model that draws: `images` for the pictures of a request, `generate` for its events. Made by `load`.

    Args:
        spec: what the model's folder holds.
        precision: device and dtype.
        origin: what it was loaded by, for the record in its images.
        frugal: free every part as soon as its stage is over; otherwise parts stay loaded for the next request. None
            decides by the memory that is free at each request.
        fast: how it runs, see `engine.choose_engine`.
        threads: of a CPU, for every stage; None chooses by the size of the work (see `threads.stage_threads`). torch's
            number is set while a stage works, and set back before each event.
        swap_loras: LoRAs stay beside the weights, so that those of the next request take their place in milliseconds,
            but steps take longer; otherwise they are merged into the weights, and other LoRAs load the transformer
            again.
        together: images of a count that share a batch, which is faster; their sums are rounded differently than alone.

    Raises RequestError for an engine, threads or LoRAs that can't be had.
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
        """Return the exact text that the text encoder reads for a request."""
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
        yield from Generation(
            plan=plan, spec=self.spec, parts=self.parts, prompts=self._prompts, timer=timer, stop=stop,
            together=self.together, frugal=bool(self.frugal),
        ).events()  # fmt: skip

    def together_that_fit(self, request: ImageRequest, most: int) -> int:
        """How many images of a request can be drawn together by the memory that is free: from 1 to `most`, or 8."""
        plan = make_plan(self.spec, request)
        free = available_bytes(self.precision.device)
        for count in range(min(most, _TOGETHER), 1, -1):
            need = estimate(
                Shapes.of(self.spec), plan.drawn.width, plan.drawn.height, self.precision.dtype, plan.branches * count,
                self.precision.device.type, total_bytes(self.precision.device),
                controls=[each.spec.config for each in plan.controls],
            )  # fmt: skip
            if fits_together(need, free):
                return count
        return 1

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
        # Once parts had to be freed after their stage, they always are.
        if self._frugal_by_memory and not self.frugal:
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
