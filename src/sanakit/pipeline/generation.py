"""One request on its way from prompt to images: the stages in their order, as events.

prompt ──▶ latents of the source and of control pictures ──▶ for each group of images: denoise, decode
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from PIL import Image
from torch import Tensor

from sanakit.pipeline.canvas import to_drawn
from sanakit.pipeline.components import Components, PartName
from sanakit.pipeline.decoder import decode, to_picture
from sanakit.pipeline.denoiser import denoise_together
from sanakit.pipeline.encoder import encode
from sanakit.pipeline.events import Cancelled, Done, Event, Note, PictureDone, StageStarted, Step
from sanakit.pipeline.plan import Plan
from sanakit.pipeline.prompt import PromptStates, encode_prompt, prompt_key, text_notes
from sanakit.pipeline.steering import LoadedControl, control_pixels
from sanakit.pipeline.threads import StageTimer
from sanakit.text import LruCache
from sanakit.weights import ModelSpec

Stop = Callable[[], bool]


@dataclass(frozen=True, kw_only=True)
class Generation:
    """The run of one plan.

    spec: what the model is. parts: its networks, loaded when their stage begins. prompts: token states of earlier
    requests. stop: asked between steps and images; True ends the run with `Cancelled`. together: images that share
    forward passes. frugal: free every part as soon as its stage is over.
    """

    plan: Plan
    spec: ModelSpec
    parts: Components
    prompts: LruCache[PromptStates]
    timer: StageTimer
    stop: Stop
    together: int
    frugal: bool

    def events(self) -> Iterator[Event]:
        """Run the stages; the last event is `Done` or `Cancelled`."""
        plan = self.plan
        if plan.steps == 0:
            yield from self._unchanged()
            return
        prompt = yield from self._encode_prompt()
        source = yield from self._encode_source()
        controls = yield from self._encode_controls()
        finished = 0
        while finished < len(plan.seeds):
            group = range(finished, min(finished + self.together, len(plan.seeds)))
            latents = yield from self._denoise(group, prompt, source, controls)
            for index, latent in zip(group, latents, strict=False):  # there are none if the caller stopped
                if self.stop():
                    break
                image = yield from self._decode(index, latent)
                yield self._done(index, image, len(group))
                finished += 1
            if finished < group.stop:
                yield Cancelled(finished=finished, timings=self.timer.seconds)
                return
        yield Done(timings=self.timer.seconds)

    def _unchanged(self) -> Iterator[Event]:
        """Yield the source itself, as an edit of strength 0 asks for it."""
        assert self.plan.edit is not None
        for index in range(len(self.plan.seeds)):
            yield self._done(index, self.plan.edit.source.copy())
        yield Done(timings={})

    def _done(self, index: int, image: Image.Image, together: int = 1) -> PictureDone:
        return PictureDone(
            index=index, seed=self.plan.seeds[index], image=image, request=self.plan.request.picture(index),
            made={"together": str(together)} if together > 1 else {},
        )  # fmt: skip

    def _encode_prompt(self) -> Generator[Event, None, PromptStates]:
        key = prompt_key(self.plan)
        prompt = self.prompts.get(key)
        if prompt is None:
            yield from self._load("text")
            yield StageStarted(stage="text")
            with self.timer.timed("text"):
                notes = text_notes(self.parts.text, self.spec, self.plan)
                prompt = encode_prompt(self.parts.text, self.spec, self.plan)
            self.prompts.put(key, prompt)
            yield self.timer.done("text")
            yield from (Note(message=message) for message in notes)
        self._free("text")
        return prompt

    def _encode_source(self) -> Generator[Event, None, Tensor | None]:
        """Return the latent of the picture that is changed, if one is."""
        if self.plan.edit is None:
            return None
        latent = yield from self._encode_pixels(to_drawn(self.plan.edit.canvas, self.plan.edit.source))
        if not self.plan.controls:
            self._free("encoder")
        return latent

    def _encode_controls(self) -> Generator[Event, None, list[Tensor]]:
        """Return the latents of the control pictures, in the order of the plan."""
        planned = self.plan.controls
        self.parts.release_controls([each.spec for each in planned])
        latents = []
        for each in planned:
            latents.append((yield from self._encode_pixels(control_pixels(each.control, self.plan.drawn))))
        if planned:
            self._free("encoder")
        return latents

    def _encode_pixels(self, pixels: Tensor) -> Generator[Event, None, Tensor]:
        """Return the latent of a picture [1, 3, H, W]."""
        yield from self._load("encoder")
        yield StageStarted(stage="encode")
        with self.timer.timed("encode"):
            latent = encode(self.parts.encoder, pixels)
        yield self.timer.done("encode")
        return latent

    def _denoise(
        self, group: range, prompt: PromptStates, source: Tensor | None, controls: Sequence[Tensor]
    ) -> Generator[Event, None, list[Tensor]]:
        """Return the latents [1, C, h, w] of a group of images, none if the caller stopped."""
        plan, parts = self.plan, self.parts
        parts.use_loras(plan.request.loras)
        yield from self._load("transformer", group.start)
        yield from self._load_controls(group.start)
        yield StageStarted(stage="denoise", index=group.start, total=plan.steps)
        loaded = [
            LoadedControl(planned=planned, network=parts.control(planned.spec), latent=latent)
            for planned, latent in zip(plan.controls, controls, strict=True)
        ]
        seeds, device = plan.seeds[group.start : group.stop], parts.precision.device
        states = denoise_together(parts.transformer, prompt, plan, seeds, device, source, loaded)
        for step in range(plan.steps):
            if self.stop():
                return []
            with self.timer.timed("denoise"):
                found = next(states)
            latent = torch.cat([state.x0 for state in found])
            yield Step(stage="denoise", index=step, total=plan.steps, latent=latent)
        yield self.timer.done("denoise", group.start)
        self._free("transformer")
        return [state.x for state in found]

    def _decode(self, index: int, latent: Tensor) -> Generator[Event, None, Image.Image]:
        yield from self._load("decoder", index)
        yield StageStarted(stage="decode", index=index)
        with self.timer.timed("decode"):
            image = to_picture(self.plan, decode(self.parts.autoencoder, latent, self.plan.decoded))
        yield self.timer.done("decode", index)
        self._free("decoder")
        return image

    def _load(self, name: PartName, index: int = 0) -> Iterator[Event]:
        if not self.parts.is_loaded(name):
            yield from self._timed_load(lambda: self.parts.load(name), index)

    def _load_controls(self, index: int) -> Iterator[Event]:
        for each in self.plan.controls:
            if not self.parts.has_control(each.spec):
                yield from self._timed_load(partial(self.parts.control, each.spec), index)

    def _timed_load(self, load: Callable[[], object], index: int) -> Iterator[Event]:
        yield StageStarted(stage="load", index=index)
        with self.timer.timed("load"):
            load()
        yield self.timer.done("load", index)

    def _free(self, name: PartName) -> None:
        if self.frugal:
            self.parts.release(name)
            if name == "transformer":
                self.parts.release_controls()
