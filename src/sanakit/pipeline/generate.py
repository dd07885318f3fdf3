"""`Model`: requests in, events out. The order of the stages is here; what they do is in `stages.py`."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from sanakit import __version__
from sanakit.base.errors import RequestError
from sanakit.base.precision import Precision, decide
from sanakit.base.threads import Threads, check_threads, use_threads
from sanakit.pipeline import stages
from sanakit.pipeline.assemble import Adapt, PartName, Parts
from sanakit.pipeline.engine import choose_engine, int8_remark
from sanakit.pipeline.events import (
    Cancelled,
    Done,
    Event,
    Note,
    PictureDone,
    Stage,
    StageDone,
    StageStarted,
    Started,
    Step,
)
from sanakit.pipeline.fingerprint import fingerprint
from sanakit.pipeline.memory import (
    Shapes,
    available_bytes,
    cannot_fit,
    estimate,
    fits_together,
    shortage,
    total_bytes,
)
from sanakit.pipeline.request import Defaults, ImageRequest
from sanakit.pipeline.work import stage_threads
from sanakit.text import final_prompt
from sanakit.weights import Hints, ModelSpec, int8_layers, read_model_spec, resolve, with_autoencoder

_REMEMBERED = 64
_PART: dict[str, PartName] = {"text": "text", "denoise": "transformer", "decode": "decoder"}
_NAMED, _LETTERS = 5, 40  # unknown words in a note, and letters of each
Stop = Callable[[], bool]


def load(
    name: str | Path = "toybox",
    device: str | None = None,
    dtype: str | None = None,
    *,
    parts: str | Path | None = None,
    hints: Hints | None = None,
    decoder: str | Path | None = None,
    fast: str | None = None,
    variant: str | None = None,
    ignore_config_fields: Collection[str] = (),
    threads: int | None = None,
    announce: Callable[[str], object] = lambda text: None,
) -> Model:
    """A model by name: the shipped `toybox`, a folder, a published model's short name, a hub id, or a `.pth`.

    A file of weights holds a transformer only: `parts` names the model that gives text encoder and autoencoder, and
    `hints` say what the file does not tell.
    `decoder` names whose autoencoder makes the picture instead of the model's: RUN/vae, or another model.
    Reads configuration files only; weights are loaded by the first request, stage by stage. `device` and `dtype` as in
    `base.precision.decide`, `fast` as in `engine.choose_engine`, `threads` as in `Model`. `variant` chooses weights
    such as fp16 or bf16 of a folder or hub repository; components without it give their plain ones, with a note.
    `ignore_config_fields` are fields of configuration files to read as if they were not there, for files of a newer
    diffusers. `announce` is told the sizes before anything is downloaded.
    Raises ModelNotFoundError, ConfigError, WeightsError for a variant that nothing has, or RequestError.
    """
    precision = decide(device, dtype)
    if isinstance(ignore_config_fields, str):
        ignore_config_fields = ignore_config_fields.split(",")
    wanted = {} if variant is None else {"variant": variant}  # else that of a published name
    path = resolve(name, announce=announce, **wanted)
    others = None if parts is None else resolve(parts, announce=announce, **wanted)
    found = read_model_spec(path, parts=others, hints=hints, variant=variant, ignore=ignore_config_fields)
    if decoder is not None:
        found = with_autoencoder(found, resolve(decoder, announce=announce))
    return Model(
        found,
        precision,
        name=str(name),
        parts=None if parts is None else str(parts),
        decoder=None if decoder is None else str(decoder),
        hints=hints,
        fast=fast,
        ignored=tuple(sorted(ignore_config_fields)),
        threads=threads,
    )


class Model:
    """A model that draws. Safe to keep: parts stay loaded between requests unless `frugal`.

    frugal: free every part as soon as its stage is over. None decides by the memory that is free at each request.
    name, parts, decoder, hints: what the model was loaded by, for the record in its pictures. fast: how it runs, see
    `engine.choose_engine`. adapt: see `Parts`. ignored: fields of configuration files that were, for the record, too.
    threads: of a CPU, for every stage; None chooses by the size of the work (see `work.stage_threads`). torch's number
    is set while a stage works, and set back before each event.
    """

    def __init__(
        self,
        spec: ModelSpec,
        precision: Precision,
        *,
        name: str = "",
        parts: str | None = None,
        hints: Hints | None = None,
        decoder: str | None = None,
        frugal: bool | None = None,
        fast: str | None = None,
        adapt: Adapt | None = None,
        ignored: tuple[str, ...] = (),
        threads: int | None = None,
    ) -> None:
        self.spec = spec
        self.precision = precision
        self.name = name or str(spec.folder)
        self.others = {"parts": parts, "decoder": decoder}
        self.hints = hints or Hints()
        self.frugal = frugal
        self.threads = check_threads(threads)
        self.engine = choose_engine(fast, precision)
        self.parts = Parts(spec, precision, self.engine, adapt)
        self._automatic = False
        self._warned: set[tuple[str, int, int]] = set()
        self._ignored = ignored
        rounded = self.engine.int8 or bool(int8_layers(spec.transformer_source))
        remark = int8_remark(precision) if rounded else None
        self._warnings: list[str] = [*spec.notes, *([] if remark is None else [remark])]
        self._prompts: OrderedDict[tuple[str, str, bool, bool], stages.Prompt] = OrderedDict()

    @property
    def defaults(self) -> Defaults:
        """What this model fills into open fields of a request."""
        side = self.spec.transformer.sample_size * self.spec.autoencoder.ratio
        schedule = self.spec.schedule
        steps = 2 if schedule.kind == "scm" else 20
        return Defaults(width=side, height=side, steps=steps, solver=schedule.solver)

    @cached_property
    def provenance(self) -> dict[str, str]:
        """What a picture of this model is made with, as texts for `output.Record`."""
        loaded_by = {
            **self.others,
            "variant": self.spec.variant,
            "ignore_config_fields": ",".join(self._ignored) or None,
            **self.hints.texts,
        }
        return {
            "model": self.name,
            **{name: value for name, value in loaded_by.items() if value is not None},
            "weights": fingerprint(self.spec),
            "version": __version__,
            "torch": torch.__version__,
            "device": self.precision.device.type,
            "dtype": str(self.precision.dtype).removeprefix("torch."),
            "engine": self.engine.name,
        }

    def final_prompt(self, request: ImageRequest) -> str:
        """The very text that the text encoder reads for a request."""
        instruction = stages.instruction_of(self.spec, request)
        return final_prompt(request.prompt, instruction, self.spec.dialect.lowercase)

    def images(self, request: ImageRequest) -> list[Image.Image]:
        """The pictures of a request, without the events."""
        return [event.image for event in self.generate(request) if isinstance(event, PictureDone)]

    def generate(self, request: ImageRequest, stop: Stop | None = None) -> Iterator[Event]:
        """Draws a request, one picture after the other, and yields what happens (see `events.py`).

        stop: asked between steps; once it says True, `Cancelled` is the last event.
        Raises RequestError before anything is loaded where the request does not fit the model or one stage can't fit
        into memory, and before anything is drawn where the prompt is too long; WeightsError while
        loading, and NumericsError where numbers stop being finite.
        """
        request = request.complete(self.defaults)
        stages.check_blocks(self.spec, request)
        width, height = stages.drawn_size(self.spec, request)
        self._plan_memory(request, width, height)
        return self._run(request, width, height, stop or (lambda: False))

    def stage_threads(self, width: int, height: int) -> Mapping[Stage, Threads]:
        """Threads of a CPU that each stage of a picture of this size gets, and why."""
        return stage_threads(self._shapes, width, height, self.precision.device, self.threads)

    def _run(self, request: ImageRequest, width: int, height: int, stop: Stop) -> Iterator[Event]:
        run = _Timings(self.stage_threads(width, height))
        yield Started(request=request, drawn_width=width, drawn_height=height)
        for message in self._remarks(request):
            yield Note(message=message)
        prompt = yield from self._text(request, run)
        for index in range(request.count):
            picture = request.picture(index)
            latent = yield from self._denoise(picture, index, prompt, run, stop)
            if latent is None or stop():
                yield Cancelled(finished=index, timings=run.seconds)
                return
            image = yield from self._decode(picture, index, latent, run)
            yield PictureDone(index=index, seed=picture.seed, image=image, request=picture)
        yield Done(timings=run.seconds)

    def _text(self, request: ImageRequest, run: _Timings) -> Generator[Event, None, stages.Prompt]:
        null = stages.needs_null(self.spec, request)
        key = (request.prompt, request.negative if null else "", request.chi, null)
        prompt = self._prompts.get(key)
        if prompt is None:
            yield from self._load("text", run)
            yield StageStarted(stage="text")
            with run.timed("text"):
                notes = [*self._tokens_cut(request), *self._unknown_words(request)]
                prompt = stages.encode_text(self.parts.text, self.spec, request)
            yield run.done("text")
            yield from (Note(message=message) for message in notes)
        self._prompts[key] = prompt
        self._prompts.move_to_end(key)
        while len(self._prompts) > _REMEMBERED:
            self._prompts.popitem(last=False)
        self._free("text")
        return prompt

    def _denoise(
        self, picture: ImageRequest, index: int, prompt: stages.Prompt, run: _Timings, stop: Stop
    ) -> Generator[Event, None, Tensor | None]:
        """The latent, or None when the caller stopped it."""
        yield from self._load("transformer", run, index)
        steps = picture.steps or 1
        yield StageStarted(stage="denoise", index=index, total=steps)
        latent: Tensor | None = None
        states = stages.denoise(self.parts.transformer, self.spec, prompt, picture, self.precision.device)
        for number in range(steps):
            if stop():
                return None
            with run.timed("denoise"):
                state = next(states)
            latent = state.x
            yield Step(stage="denoise", index=number, total=steps, latent=state.x0)
        yield run.done("denoise", index)
        self._free("transformer")
        return latent

    def _decode(
        self, picture: ImageRequest, index: int, latent: Tensor, run: _Timings
    ) -> Generator[Event, None, Image.Image]:
        yield from self._load("decoder", run, index)
        yield StageStarted(stage="decode", index=index)
        with run.timed("decode"):
            image = stages.to_image(stages.decode(self.parts.autoencoder, latent, picture))
        yield run.done("decode", index)
        self._free("decoder")
        return image

    def _load(self, name: PartName, run: _Timings, index: int = 0) -> Iterator[Event]:
        if self.parts.is_loaded(name):
            return
        yield StageStarted(stage="load", index=index)
        with run.timed("load"):
            self.parts.load(name)
        yield run.done("load", index)

    def _free(self, name: PartName) -> None:
        if self.frugal:
            self.parts.release(name)

    @property
    def _shapes(self) -> Shapes:
        found = self.spec
        return Shapes(transformer=found.transformer, autoencoder=found.autoencoder, text=found.text_config)

    def _plan_memory(self, request: ImageRequest, width: int, height: int) -> None:
        """Refuse what can't fit, and decide `frugal` where nobody has; parts that are loaded count as free."""
        found, device = self.spec, self.precision.device
        available = available_bytes(device)
        need = estimate(
            self._shapes, width, height, self.precision.dtype, device=device.type, total=total_bytes(device),
            branches=1 + stages.needs_null(found, request) + (request.pag > 0),
        )  # fmt: skip
        held = sum(stage.weights for stage in need if self.parts.is_loaded(_PART[stage.stage]))
        room = None if available is None else available + held
        short = shortage(need, room)
        if short is not None and room is not None:
            told = f"{short.stage} needs about {short.total / 1e9:.1f} GB of memory, {room / 1e9:.1f} GB are free"
            # On a GPU the decoder goes on in tiles, so only weights are certain.
            if short.weights > room or (device.type == "cpu" and cannot_fit(short, room)):
                raise RequestError(f"{told}: free some, or choose a smaller size, model or dtype.")
            self._warn(f"{told}: it may fail; a smaller size needs less.", (short.stage, width, height))
        self._decide_frugal(fits_together(need, room))

    def _decide_frugal(self, together: bool) -> None:
        """Once parts had to be freed after their stage, they are from then on; who asked for either is heeded."""
        self._automatic = self._automatic or self.frugal is None
        if self._automatic and not self.frugal:
            self.frugal = not together
            for name in _PART.values() if self.frugal else ():
                self.parts.release(name)

    def _warn(self, text: str, about: tuple[str, int, int]) -> None:
        """Keep a sentence for the next request's notes, unless it was said of the same before."""
        if about not in self._warned:
            self._warned.add(about)
            self._warnings.append(text)

    def _tokens_cut(self, request: ImageRequest) -> list[str]:
        """One sentence for each text that is too long; raises RequestError where it must not be cut."""
        encoder, lowercase = self.parts.text, self.spec.dialect.lowercase
        instruction = stages.instruction_of(self.spec, request)
        texts = [("prompt", request.prompt, instruction)]
        if stages.needs_null(self.spec, request):
            texts.append(("negative prompt", request.negative, None))
        counts = [(name, encoder.count_cut(text, how, lowercase=lowercase)) for name, text, how in texts]
        found = [(name, f"{cut} token{'s' if cut > 1 else ''}") for name, cut in counts if cut]
        if found and not request.truncate:
            name, tokens = found[0]
            raise RequestError(
                f"the {name} is too long: its last {tokens} would be cut, {encoder.max_tokens} are read; "
                f"shorten it, or allow the cut with truncate."
            )
        return [
            f"the {name} is too long: its last {tokens} were cut, {encoder.max_tokens} are read."
            for name, tokens in found
        ]

    def _unknown_words(self, request: ImageRequest) -> list[str]:
        """A sentence where the prompt holds words that the model has never learnt, and so can't draw."""
        words = stages.unknown_words(self.spec, request.prompt)
        if not words:
            return []
        listed = ", ".join(word[:_LETTERS] for word in words[:_NAMED])
        more = f" and {len(words) - _NAMED} more" if len(words) > _NAMED else ""
        some, their = ("words", "their") if len(words) > 1 else ("word", "its")
        return [
            f"this model has not learnt the {some} {listed}{more}, and draws something else in {their} place."
        ]

    def _remarks(self, request: ImageRequest) -> list[str]:
        """Sentences about parts of the request that have no effect."""
        remarks, self._warnings = self._warnings, []
        if request.negative and not stages.needs_null(self.spec, request):
            remarks.append("the negative prompt has no effect without classifier-free guidance.")
        if request.pag_blocks and not request.pag:
            remarks.append("pag_blocks have no effect without a pag scale.")
        foreign = stages.solver_of(self.spec, request).mismatch(self.spec.schedule)
        if foreign is not None:
            remarks.append(foreign)
        return remarks


class _Timings:
    """Seconds per stage: of the present run of a stage, and summed over the request; and the threads it works on."""

    def __init__(self, threads: Mapping[Stage, Threads]) -> None:
        self.threads = threads
        self.seconds: dict[str, float] = {}
        self._present: dict[str, float] = {}

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        """A block whose duration counts for `stage`, on the threads of the stage; not what a caller does between."""
        chosen = self.threads.get(stage)
        with nullcontext() if chosen is None else use_threads(chosen.count):
            begun = time.perf_counter()
            try:
                yield
            finally:
                self.add(stage, time.perf_counter() - begun)

    def add(self, stage: Stage, seconds: float) -> None:
        """Counts seconds for a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self._present[stage] = self._present.get(stage, 0.0) + seconds

    def done(self, stage: Stage, index: int = 0) -> StageDone:
        """The event that ends the present run of a stage."""
        return StageDone(stage=stage, seconds=self._present.pop(stage, 0.0), index=index)
