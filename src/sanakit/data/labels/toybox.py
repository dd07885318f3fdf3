"""Captions and scores from the Toybox judge: what it sees in a render, phrased in the grammar, and its certainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image

from sanakit.base.errors import RequestError
from sanakit.data.labels.labellers import Captioner, Scorer
from sanakit.toybox import GroupSpec, SceneSpec, parse, phrase
from sanakit.toybox.grammar import RELATIONS
from sanakit.toybox.judging import Reading, Verdict, judge, read
from sanakit.toybox.judging.network import judge_input
from sanakit.toybox.judging.shipped import load_judge

_WRONG = 0.25
"""Of a score, if something is wrong."""


def toybox_captioner() -> Captioner:
    """Describe what the judge sees: groups, a clear relation of two, floor and light. Raises WeightsError."""

    def caption(pictures: Sequence[Image.Image]) -> list[str]:
        specs = (spec_of(reading) for reading in _readings(pictures))
        return ["" if spec is None else phrase(spec) for spec in specs]

    return caption


def toybox_scorer() -> Scorer:
    """100 x the judge's mean probability of the words of a caption; a quarter of it if something is wrong.

    So a caption that the judge disagrees with never gets above 25, the usual threshold of filters. One that is not in
    the grammar gets 0. Raises WeightsError.
    """

    def score(pictures: Sequence[Image.Image], captions: Sequence[Sequence[str]]) -> list[list[float]]:
        readings = _readings(pictures)
        return [
            [_score(text, reading) for text in texts]
            for texts, reading in zip(captions, readings, strict=True)
        ]

    return score


def spec_of(reading: Reading) -> SceneSpec | None:
    """Return the scene of a reading, None if it is empty."""
    groups: dict[GroupSpec, int] = {}
    for item in reading.objects:
        group = GroupSpec(shape=item.shape, colour=item.colour, material=item.material, size=item.size)
        groups[group] = groups.get(group, 0) + 1
    if not groups:
        return None
    named = tuple(replace(group, count=count) for group, count in groups.items())
    spec = SceneSpec(groups=named, floor=reading.floor, light=reading.light)
    return replace(spec, relation=_relation(spec, reading))


def _relation(spec: SceneSpec, reading: Reading) -> str | None:
    """Return the relation of the first of two things to the second, if the judge would accept exactly one word."""
    if len(spec.groups) != 2 or spec.count != 2:
        return None
    fitting = [name for name in RELATIONS if judge(replace(spec, relation=name), reading).correct]
    return fitting[0] if len(fitting) == 1 else None


def _readings(pictures: Sequence[Image.Image]) -> list[Reading]:
    return read(load_judge().network, torch.cat([judge_input(picture) for picture in pictures]))[0]


def _score(text: str, reading: Reading) -> float:
    try:
        return rating(judge(parse(text), reading))
    except RequestError:
        return 0.0


def rating(verdict: Verdict) -> float:
    """The score of a verdict, 0..100; see `toybox_scorer`."""
    return 100 * verdict.score * (1.0 if verdict.correct else _WRONG)
