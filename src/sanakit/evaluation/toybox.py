"""How well a model follows prompts, judged on those of the Toybox: accuracy per category, and distance to renders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sanakit.evaluation.measures import Share, edge_slope, frechet_distance, kernel_distance
from sanakit.evaluation.outline import out_of_round
from sanakit.toybox import render, sample_scene
from sanakit.toybox.judging import Judge, Reading, Verdict, judge, read
from sanakit.toybox.judging.network import SIZE, judge_input
from sanakit.toybox.trials import CATEGORIES, Trial

_RENDERS = 32  # scenes whose renders say how steep edges should be; their mean is then known to 2 %

Draw = Callable[[Trial, int], Image.Image]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One prompt, the image drawn for it, what the judge read in it, and its verdict. features: [C]."""

    trial: Trial
    seed: int
    picture: Image.Image
    reading: Reading
    verdict: Verdict
    features: Tensor


@dataclass(frozen=True, kw_only=True)
class Summary:
    """overall, categories: shares of correct images, of the prompts of `trials`; score and distances are theirs, too.

    score: mean probability of the words of the prompt. frechet, kernel: distances of the drawn images' features to
    those of held-out renders; None for a single image. edges: slope of the drawn images' edges over that of renders.
    roundness: median distance of a single sphere's outline from a circle, as a share of its radius; None if no prompt
    asks for one sphere alone, or none was drawn. phrasings: the shares of the prompts of `trials.phrasings`, with the
    same names; empty if there are none.
    """

    overall: Share
    categories: dict[str, Share]
    score: float
    frechet: float | None
    kernel: float | None
    edges: float
    roundness: float | None
    phrasings: Mapping[str, Share]

    def to_json(self) -> dict[str, object]:
        """Return `overall` and each category as accuracy, low, high, n; then the other figures and phrasings."""
        shares = {"overall": self.overall, **self.categories}
        result: dict[str, object] = {name: share.to_json() for name, share in shares.items()}
        result |= {name: getattr(self, name) for name in FIGURES}
        return result | {
            "phrasings": {name: share.to_json() for name, share in self.phrasings.items()} or None
        }


FIGURES = ("score", "frechet", "kernel", "edges", "roundness")
"""The fields of a summary that are not shares."""


def outcomes(draw: Draw, trials: Iterable[Trial], network: Judge, seed: int = 0) -> Iterator[Outcome]:
    """Draw and judge every trial; trial i is drawn with `seed` + i."""
    for number, trial in enumerate(trials, start=seed):
        picture = draw(trial, number)
        readings, features = read(network, judge_input(picture))
        verdict = judge(trial.spec, readings[0])
        yield Outcome(
            trial=trial,
            seed=number,
            picture=picture,
            reading=readings[0],
            verdict=verdict,
            features=features[0],
        )


def summarise(found: Sequence[Outcome], renders: Tensor) -> Summary:
    """Return shares and distances of outcomes, some of which are of `trials`; `renders`: features [n, C] of renders."""
    worded = [o for o in found if o.trial.unseen == "phrasing"]
    found = [o for o in found if o.trial.unseen == "combination"]
    several = len(found) > 1
    features = torch.stack([o.features for o in found])
    return Summary(
        overall=_share(found),
        categories=_by_category(found),
        score=sum(o.verdict.score for o in found) / len(found),
        frechet=frechet_distance(features, renders) if several else None,
        kernel=kernel_distance(features, renders) if several else None,
        edges=_slope(found) / slope_of_renders(),
        roundness=_roundness(found),
        phrasings={"overall": _share(worded), **_by_category(worded)} if worded else {},
    )


def _by_category(found: Sequence[Outcome]) -> dict[str, Share]:
    return {name: _share([o for o in found if o.trial.category == name]) for name in CATEGORIES}


def _share(found: Sequence[Outcome]) -> Share:
    return Share(hits=sum(o.verdict.correct for o in found), n=len(found))


def _slope(found: Sequence[Outcome]) -> float:
    return float(torch.cat([edge_slope(judge_input(outcome.picture)) for outcome in found]).mean())


@cache
def slope_of_renders() -> float:
    """Return the mean edge slope of renders at the size that the judge reads, of which `edges` is a share."""
    scenes = [sample_scene(seed) for seed in range(_RENDERS)]
    return float(torch.cat([edge_slope(render([scene], SIZE)) for scene in scenes]).mean())


def _roundness(found: Sequence[Outcome]) -> float | None:
    """Return the median over prompts for one sphere alone in whose image the judge read one."""
    alone = [o for o in found if [(g.shape, g.count) for g in o.trial.spec.groups] == [("sphere", 1)]]
    read = [(o, o.reading.objects[0]) for o in alone if o.reading.objects]
    shares = [out_of_round(judge_input(o.picture)[0], item) for o, item in read if item.shape == "sphere"]
    return median(shares) if shares else None


def to_tensor(image: Image.Image) -> Tensor:
    """Return an image as uint8 [3, H, W]."""
    return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)
