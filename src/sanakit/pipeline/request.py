"""What a user asks for: one frozen, validated value that travels with every picture made from it.

Fields left at `None` mean "whatever the model was made for"; `complete` fills them from a model's defaults.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sanakit.base.bounds import MAX_ANGLE, MAX_SEED
from sanakit.base.echo import quoted
from sanakit.base.errors import RequestError
from sanakit.base.json_text import parse_json
from sanakit.pipeline import control as c
from sanakit.pipeline import editing as e
from sanakit.pipeline import fields as f
from sanakit.pipeline import regions as r
from sanakit.pipeline.fields import RequestField, about, option
from sanakit.pipeline.inputs import InputImage
from sanakit.pipeline.loras import LoRAFile, check_loras, decode_loras, encode_loras, take_loras
from sanakit.pipeline.regions import Region

MAX_SIDE = 16384
MAX_STEPS = 1000
MAX_COUNT = 10000
MAX_BLOCK = 10000
MAX_GUIDANCE = 1000.0  # pictures burn out past 20; far larger scales leave the range of the numbers
_OWN = "the model's own"


def _check_solver(name: str, value: object) -> None:
    """Refuse a solver that isn't known."""
    from sanakit.flow import SOLVERS  # brings torch, which `sanakit --help` does without

    if not isinstance(value, str) or value not in SOLVERS:
        raise RequestError(f"unknown {name} {quoted(value)}: choose one of {', '.join(SOLVERS)}")


def _any(name: str, value: object) -> None:
    """Accept a value that was checked as it was taken."""


_EDIT: dict[str, Any] = {"later": True, "commands": ("edit",)}
_IMAGE: dict[str, Any] = {
    "take": InputImage.take,
    "encode": InputImage.to_json,
    "decode": InputImage.from_json,
}


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What a model fills into the fields of a request that were left open; sizes in pixels."""

    width: int
    height: int
    steps: int = 20
    guidance: float = 4.5
    solver: str = "dpm2"


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """A request for one or several pictures; raises `RequestError` with one sentence if it makes no sense.

    what        prompt ("" for none), negative, regions: prompts for boxes, chi: the model's instruction goes before it
    size        width, height in pixels, multiples of 32; bins: draw at the nearest trained size, then scale
    sampling    steps, solver, angles in radians (scm alone), seed, count, truncate: cut a prompt that is too long
    guidance    guidance: the classifier-free scale, 1 for none; cfg_interval: noise levels, 0 picture to 1 noise; pag,
                pag_blocks: perturbed attention
    adapters    loras, controls
    editing     source, mask, strength, outpaint; by words alone: source_prompt, source_guidance, averages

    A field that is None takes the model's own value. Picture k of `count` is drawn with `seed + k` and equals the
    picture of that seed asked for alone. The metadata of each field is its help, its check and its name in pictures;
    see `fields.py`, and docs/cli.md for a table of all.
    """

    prompt: str = field(metadata=about("What to draw; an empty text draws without a prompt.", f.text))
    negative: str = option(
        "", "What the picture should not show; works through guidance.", f.text, shown_default="none"
    )
    steps: int | None = option(
        None, "Number of solver steps.", f.Whole(1, MAX_STEPS), png="Steps", shown_default=_OWN
    )
    guidance: float | None = option(
        None, "How strictly to follow the prompt (classifier-free guidance); 1 turns it off.",
        f.Number(MAX_GUIDANCE), png="CFG scale", shown_default=_OWN,
    )  # fmt: skip
    seed: int = option(
        0, "Seed of the noise; picture k of a count uses seed + k.", f.Whole(0, MAX_SEED, "2^63-1"), png="Seed"
    )  # fmt: skip
    width: int | None = option(None, "Width in pixels.", f.Side(MAX_SIDE))
    height: int | None = option(None, "Height in pixels.", f.Side(MAX_SIDE))
    count: int = option(1, "Pictures per prompt.", f.Whole(1, MAX_COUNT))
    solver: str | None = option(
        None, "The solver: dpm1, dpm2, dpm3, euler, or scm for Sprint models.",
        _check_solver, png="Sampler", shown_default=_OWN,
    )  # fmt: skip
    angles: tuple[float, ...] | None = option(
        None, "Angles at which the steps of scm begin, falling from 1.5708 (pure noise); the last ends at 0.",
        f.falling(MAX_ANGLE, MAX_STEPS), png="Angles", metavar="X,...", shown_default="those of --steps", later=True,
    )  # fmt: skip
    chi: bool = option(
        True, "Put the instruction that the model was trained with before the prompt.", f.switch, png="CHI"
    )
    cfg_interval: tuple[float, float] = option(
        (0.0, 1.0), "Guide only while the noise level lies in this range (0 is the picture, 1 pure noise).",
        f.unit_interval, png="CFG interval", metavar="LOW,HIGH", shown_default="0,1",
    )  # fmt: skip
    pag: float = option(
        0.0, "Scale of perturbed attention guidance; 0 turns it off.", f.Number(MAX_GUIDANCE), png="PAG scale"
    )
    pag_blocks: tuple[int, ...] | None = option(
        None, "Transformer blocks that --pag perturbs, counted from 0.",
        f.blocks(MAX_BLOCK), png="PAG blocks", metavar="N,...", shown_default=_OWN,
    )  # fmt: skip
    truncate: bool = option(
        False, "Cut a prompt that has more tokens than the model reads, instead of refusing it.",
        f.switch, png="Truncate",
    )  # fmt: skip
    bins: bool = option(
        True,
        "Draw at the nearest size that the model was trained on, and scale to --size.",
        f.switch,
        png="Bins",
    )
    regions: tuple[Region, ...] = option(
        (), "A prompt for a box of the picture, in pixels or fractions; may be repeated.",
        r.check_regions, png="Regions", metavar="X,Y,W,H:TEXT", shown_default="none", flag="--region", many=True,
        take=r.take_regions, encode=r.regions_to_json, decode=r.regions_from_json, later=True,
    )  # fmt: skip
    controls: tuple[c.Control, ...] = option(
        (), "Steer by a picture: a ControlNet (folder, file or hub id) and what it reads; may be repeated.",
        c.check_controls, png="Controls", metavar="NET:PICTURE", shown_default="none",
        later=True, take=c.take_controls, encode=c.encode_controls, decode=c.decode_controls, many=True,
        flag="--control",
    )  # fmt: skip
    source: InputImage | None = option(
        None,
        "The picture to change.",
        _any,
        png="Source",
        argument="PICTURE of `sanakit edit`",
        **_IMAGE,
        **_EDIT,
    )
    mask: InputImage | None = option(
        None, "White where to draw anew, black where to keep every pixel; grey begins later and changes less.",
        _any, png="Mask", metavar="MASK.png", shown_default="none", **_IMAGE, **_EDIT,
    )  # fmt: skip
    strength: float | None = option(
        None, "Share of the steps that is run: 0 changes nothing, 1 keeps nothing but what a mask keeps. "
        "With --from, a Sprint model runs all of them, from this noise level on.",
        f.Number(1.0), png="Strength", shown_default="0.5, 0.7 with --from, 1 with a mask", **_EDIT,
    )  # fmt: skip
    outpaint: tuple[int, ...] | None = option(
        None, "Margins in pixels to draw around the picture: left, top, right, bottom.",
        e.check_margins, png="Outpaint", metavar="L,T,R,B", shown_default="none",
        take=e.take_margins, encode=list, decode=e.margins_from_json, **_EDIT,
    )  # fmt: skip

    source_prompt: str | None = option(
        None, "Edit by words alone: what the picture shows now; --prompt says what it should show.",
        f.text, png="Source prompt", metavar="TEXT", shown_default="none", flag="--from", **_EDIT,
    )  # fmt: skip
    source_guidance: float | None = option(
        None, "With --from: guidance towards the words of the source.",
        f.Number(MAX_GUIDANCE), png="Source CFG scale", shown_default="1.5, 1 for inversion", **_EDIT,
    )  # fmt: skip
    how: str | None = option(
        None, "With --from: flow-edit, or inversion, which seeks the noise that the picture comes from.",
        e.check_how, png="How", metavar="NAME", shown_default="flow-edit", **_EDIT,
    )  # fmt: skip
    averages: int | None = option(
        None, "With --from: noises over which each step averages; more are calmer and take longer.",
        f.Whole(1, 64), png="Averages", shown_default="1", **_EDIT,
    )  # fmt: skip
    loras: tuple[LoRAFile, ...] = option(
        (), "Use this LoRA, at a weight and in blocks if they are given; may be repeated.", check_loras, png="LoRA",
        metavar="FILE[:X]", shown_default="none", flag="--lora", later=True, take=take_loras,
        encode=encode_loras, decode=decode_loras, many=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        for entry in request_fields():
            value = getattr(self, entry.name)
            if value is not None and entry.take is not None:
                value = entry.take(value)
                object.__setattr__(self, entry.name, value)  # frozen: only here, before anyone has seen it
            if value is not None or entry.default is not None:
                entry.check(entry.name, value)
        if self.seed + self.count - 1 > MAX_SEED:
            raise RequestError("seed + count goes past the largest seed 2^63-1: choose a smaller seed")
        e.check_edit(self.source, self.mask, self.strength, self.outpaint)
        e.check_words(self.source, self.source_prompt, self.source_guidance, self.averages, self.how)
        if None not in (self.angles, self.steps) and len(self.angles or ()) != self.steps:
            raise RequestError(
                f"angles gives {len(self.angles or ())} steps and steps asks for {self.steps}: give one of them"
            )

    def complete(self, defaults: Defaults) -> ImageRequest:
        """Return the same request with every open field filled from `defaults`, or the steps from the angles."""
        values = {one.name: getattr(defaults, one.name) for one in dataclasses.fields(defaults)}
        if self.angles is not None:
            values["steps"] = len(self.angles)
        return dataclasses.replace(
            self, **{name: value for name, value in values.items() if getattr(self, name) is None}
        )

    def replace(self, **changes: Any) -> ImageRequest:
        """Return a validated copy with some fields changed; new steps open the angles, new angles the steps."""
        if ("steps" in changes) != ("angles" in changes):
            changes = {"steps": None, "angles": None} | changes
        return dataclasses.replace(self, **changes)

    def picture(self, index: int) -> ImageRequest:
        """Return the request that draws picture `index` of this one alone."""
        return self.replace(seed=self.seed + index, count=1)

    def to_json(self) -> dict[str, Any]:
        """Return fields as plain JSON values in the order of the class; those marked `later` only off their default."""
        values = {entry: getattr(self, entry.name) for entry in request_fields()}
        return {
            entry.name: entry.to_plain(value)
            for entry, value in values.items()
            if not (entry.later and value == entry.default)
        }

    @classmethod
    def from_json(cls, data: object) -> ImageRequest:
        """Inverse of `to_json`; takes a mapping or its JSON text. Raises `RequestError` for unknown or bad fields."""
        fields = _as_mapping(data)
        known = {entry.name: entry for entry in request_fields()}
        unknown = sorted(set(fields) - set(known))
        if unknown:
            raise RequestError(
                f"the request has a field that this version does not know: {quoted(unknown[0])}"
            )
        if "prompt" not in fields:
            raise RequestError("the request has no prompt")
        return cls(**{name: known[name].from_plain(value) for name, value in fields.items()})


@cache
def request_fields() -> tuple[RequestField, ...]:
    """Return the fields of a request with what they say of themselves, in the order of the class."""
    return f.read_fields(ImageRequest)


def _as_mapping(data: object) -> Mapping[str, Any]:
    if isinstance(data, (str, bytes)):
        try:
            data = parse_json(data)
        except ValueError:
            raise RequestError("the request is not JSON") from None
    if not isinstance(data, Mapping) or not all(isinstance(name, str) for name in data):
        raise RequestError("the request must be a JSON object")
    return data
