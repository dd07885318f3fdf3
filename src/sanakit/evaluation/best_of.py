"""The best of many: candidates of one request drawn, scored once each, and the best kept (SANA-1.5, section 2.3).

The paper lets a judge hold candidates against each other in a tournament (arXiv 2501.18427); a scorer that rates each
picture by itself needs one look at each and gives the same order.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

from sanakit.base.errors import RequestError
from sanakit.data.labels.labellers import Scorer
from sanakit.pipeline.events import Done, Event, Note, PictureDone, StageDone
from sanakit.pipeline.model import Model
from sanakit.pipeline.request import ImageRequest

MOST_CANDIDATES = 100_000


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How pictures are chosen.

    candidates: how many are drawn, with consecutive seeds. keep: how many stay. until: stop as soon as that many have
    this score. steps: candidates are drawn and scored in this many steps, and only the kept ones in those of the
    request; None draws all in those.
    Raises RequestError if the numbers don't fit.
    """

    candidates: int
    keep: int = 1
    until: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.candidates <= MOST_CANDIDATES:
            raise RequestError(f"best-of must be from 1 to {MOST_CANDIDATES}, not {self.candidates}")
        if not 1 <= self.keep <= self.candidates:
            raise RequestError(f"keep must be from 1 to the {self.candidates} of best-of, not {self.keep}")


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Candidate `index` of `total` has its score; `best` is the best so far."""

    index: int
    total: int
    seed: int
    score: float
    best: float


def best_of(
    model: Model, request: ImageRequest, choice: Choice, scorer: Scorer, name: str
) -> Iterator[Event | Judged]:
    """Draw the candidates of a request; yield their events, `Judged` for each, and `PictureDone` for those that stay.

    These come last, the best first; they carry the scorer's `name`, the score and the number of candidates, and their
    request is that of the picture alone. The seconds of `Done` are those of all that was drawn, and of judging.
    Raises RequestError for a request that asks for several pictures, and as `Model.generate` does.
    """
    if request.count != 1:
        raise RequestError(
            "best-of draws its own number of pictures: leave count out, and say keep for several"
        )
    draft = request if choice.steps is None else request.replace(steps=choice.steps)
    model.generate(request)  # raises for what the second drawing could not do
    candidates = model.generate(draft.replace(count=choice.candidates))
    return _choose(model, request, candidates, choice, _Scoring(scorer, request.prompt), name)


def _choose(
    model: Model,
    request: ImageRequest,
    candidates: Iterator[Event],
    choice: Choice,
    scoring: _Scoring,
    name: str,
) -> Iterator[Event | Judged]:
    kept: list[_Candidate] = []
    for event in scoring.watched(candidates):
        if not isinstance(event, PictureDone):
            yield event
            continue
        candidate = scoring.candidate(event)
        kept = sorted([*kept, candidate], key=_rank)[: choice.keep]
        yield Judged(
            index=event.index,
            total=choice.candidates,
            seed=event.seed,
            score=candidate.score,
            best=kept[0].score,
        )
        if choice.until is not None and len(kept) == choice.keep and kept[-1].score >= choice.until:
            break
    if choice.steps is not None:
        kept = yield from _refine(model, request, scoring, kept)
    if scoring.equal:
        yield Note(message=f"{name} gives all candidates the same score: the first ones are kept")
    facts = {"judge": name, "candidates": str(scoring.drawn)}
    for place, each in enumerate(kept):
        yield replace(
            each.picture, index=place, made={**each.picture.made, **facts, "score": f"{each.score:.2f}"}
        )
    yield Done(timings=scoring.seconds)


def _refine(
    model: Model, request: ImageRequest, scoring: _Scoring, kept: Sequence[_Candidate]
) -> Generator[Event, None, list[_Candidate]]:
    """Draw the kept candidates again in all steps; return them with their new scores."""
    found = []
    for each in kept:
        for event in scoring.watched(model.generate(request.replace(seed=each.picture.seed))):
            if isinstance(event, PictureDone):
                found.append(scoring.candidate(event))
            else:
                yield event
    return sorted(found, key=_rank)


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    score: float
    picture: PictureDone


def _rank(candidate: _Candidate) -> tuple[float, int]:
    """Better ones first; of equals the one with the smaller seed."""
    return -candidate.score, candidate.picture.seed


class _Scoring:
    """Scores pictures of a prompt and counts the seconds of all stages."""

    def __init__(self, scorer: Scorer, prompt: str) -> None:
        self.scorer, self.prompt = scorer, prompt
        self.seconds: dict[str, float] = {}
        self.scores: list[float] = []

    @property
    def drawn(self) -> int:
        """Pictures so far."""
        return len(self.scores)

    @property
    def equal(self) -> bool:
        """Whether several pictures have all the same score, as those of a text that the judge can't read."""
        return self.drawn > 1 and len(set(self.scores)) == 1

    def watched(self, events: Iterator[Event]) -> Iterator[Event]:
        """Yield the events of a generation without its last, whose seconds are counted."""
        for event in events:
            if isinstance(event, StageDone):
                self._count(event.stage, event.seconds)
            if not isinstance(event, Done):
                yield event

    def candidate(self, picture: PictureDone) -> _Candidate:
        """Return the picture with its score."""
        started = time.perf_counter()
        score = self.scorer([picture.image.convert("RGB")], [[self.prompt]])[0][0]
        self._count("judge", time.perf_counter() - started)
        self.scores.append(score)
        return _Candidate(score=score, picture=picture)

    def _count(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
