"""What other programs write into their pictures, read as far as it means something here.

Their samplers have other names, their sizes and numbers other bounds, and their models are not ours. What can be used
is used; everything else is passed over with a sentence, never refused and never taken for something of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict

from sanakit.base.bounds import MAX_SEED
from sanakit.base.echo import quoted
from sanakit.base.errors import RequestError
from sanakit.base.sizes import SIZE_STEP, Size
from sanakit.flow import SOLVERS
from sanakit.pipeline.request import MAX_GUIDANCE, MAX_SIDE, MAX_STEPS

__all__ = ["foreign_fields", "is_foreign", "usual_sampler"]

_OUR_VERSION = re.compile(r"\d+(\.\w+)*")
_THEIR_PAIRS = ("Model hash", "Hashes", "Schedule type", "Clip skip", "Denoising strength")
# Their samplers that walk the same equation, by their names without blanks, dots and schedules.
_SAMPLERS = {
    "euler": "euler",
    "ddim": "dpm1",
    "dpm++1s": "dpm1",
    "dpm++2m": "dpm2",
    "dpmpp2m": "dpm2",
    "dpm++3m": "dpm3",
    "dpmpp3m": "dpm3",
    "dpmsolver++": "dpm2",
    "dpmsolvermultistep": "dpm2",
    "flowmatcheuler": "euler",
    "flowmatcheulerdiscretescheduler": "euler",
}
_SCHEDULES = re.compile(
    r"(karras|exponential|polyexponential|sgmuniform|simple|normal|beta|automatic|trailing|k)$"
)


def is_foreign(pairs: Mapping[str, str]) -> bool:
    """Return whether another program wrote a `parameters` line: its sampler, version or own pairs say so."""
    if any(name in pairs for name in _THEIR_PAIRS):
        return True
    version = pairs.get("Version")
    return pairs.get("Sampler", "dpm2") not in SOLVERS or (
        version is not None and not _OUR_VERSION.fullmatch(version)
    )


def usual_sampler(name: str) -> str | None:
    """Our solver for another program's sampler; None if there is none."""
    plain = re.sub(r"[\s._()-]", "", name[:80].lower())
    while plain not in _SAMPLERS:
        shorter = _SCHEDULES.sub("", plain)
        if shorter == plain:
            return None
        plain = shorter
    return _SAMPLERS[plain]


def foreign_fields(pairs: Mapping[str, str], note: Callable[[str], object]) -> dict[str, object]:
    """Fields of a request from the pairs of another program; `note` gets what was skipped or changed."""
    fields: dict[str, object] = {
        "steps": _whole(pairs, "Steps", 1, MAX_STEPS, note),
        "seed": _whole(pairs, "Seed", 0, MAX_SEED, note) or 0,
        "guidance": _number(pairs, "CFG scale", MAX_GUIDANCE, note),
    }
    sampler = pairs.get("Sampler")
    if sampler is not None:
        solver = fields["solver"] = usual_sampler(sampler)
        known = f"read as {solver}" if solver else "passed over: the model's own solver is used"
        note(f"its sampler {quoted(sampler)} is {known}.")
    if "Size" in pairs:
        fields |= _size(pairs["Size"], note)
    if "Model" in pairs:
        note(f"its model {quoted(pairs['Model'])} is another program's and was passed over.")
    return fields


def _whole(
    pairs: Mapping[str, str], name: str, low: int, high: int, note: Callable[[str], object]
) -> int | None:
    text = pairs.get(name)
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,20}", text) and low <= int(text) <= high:
        return int(text)
    note(f"its {name} {quoted(text)} can't be used here and was passed over.")
    return None


def _number(pairs: Mapping[str, str], name: str, high: float, note: Callable[[str], object]) -> float | None:
    text = pairs.get(name)
    if text is None:
        return None
    if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{0,12})?", text) and float(text) <= high:
        return float(text)
    note(f"its {name} {quoted(text)} can't be used here and was passed over.")
    return None


def _size(text: str, note: Callable[[str], object]) -> dict[str, object]:
    """Width and height of the nearest size that is drawn here; none if it is far from any."""
    try:
        size = Size.parse(text)
    except RequestError:
        note(f"its size {quoted(text)} is not a size and was passed over.")
        return {}
    if min(size.width, size.height) < SIZE_STEP or max(size.width, size.height) > MAX_SIDE:
        note(f"its size {size} is past what is drawn here and was passed over.")
        return {}
    near = size.nearest()
    if near != size:
        note(f"its size {size} is read as {near}, multiples of {SIZE_STEP}.")
    return asdict(near)
