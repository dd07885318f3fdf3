"""What a model reached on a suite: means with intervals by judge and category; as JSON, a page, beside another's.

The unit is the prompt: of several pictures of a prompt the mean counts, and intervals are over prompts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from sanakit.base.echo import quoted
from sanakit.base.errors import DataError
from sanakit.base.files import atomic_write
from sanakit.base.json_text import read_object
from sanakit.base.units import size_text
from sanakit.evaluation.geneval import GENEVAL
from sanakit.evaluation.page import STYLE
from sanakit.evaluation.pictures import Mean, mean_of, mean_of_means
from sanakit.evaluation.suites import Suite, picture_key

FORMAT = 1
TASKS = "mean of tasks"
"""GenEval's own score: the mean of the means of its categories."""

_MOST_BYTES = 512 << 20


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What drawing took.

    pictures: how many were drawn. seconds: of one, the median. peak_bytes: of the process; None if unknown.
    """

    pictures: int
    seconds: float
    peak_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """Scores of a suite's pictures. made: the model and how it ran. scores: judge -> key of a picture -> its score.

    distances: frechet, kernel -> name of the features -> distance to the reference pictures. drawing: None if unknown.
    """

    suite: Suite
    per_prompt: int
    request: Mapping[str, Any]
    made: Mapping[str, str]
    scores: Mapping[str, Mapping[str, float]]
    distances: Mapping[str, Mapping[str, float]]
    drawing: Drawing | None = None

    def by_prompt(self, judge: str) -> dict[str, float]:
        """Return the mean score of each prompt all of whose pictures were drawn."""
        scores, found = self.scores[judge], {}
        for one in self.suite.prompts:
            keys = [picture_key(one.key, k, self.per_prompt) for k in range(self.per_prompt)]
            if all(key in scores for key in keys):
                found[one.key] = sum(scores[key] for key in keys) / len(keys)
        return found

    def means(self, judge: str) -> dict[str, Mean]:
        """`overall` and each category."""
        found = self.by_prompt(judge)
        groups: dict[str, list[float]] = {"overall": list(found.values())}
        for one in self.suite.prompts:
            if one.category and one.key in found:
                groups.setdefault(one.category, []).append(found[one.key])
        means = {name: mean_of(values) for name, values in groups.items() if values}
        tasks = [mean for name, mean in means.items() if name != "overall"]
        return means | ({TASKS: mean_of_means(tasks)} if judge == GENEVAL and len(tasks) > 1 else {})

    def other_lines(self) -> list[str]:
        """Distances and what drawing took, a line each."""
        lines = [
            f"{name.capitalize()} distance in the features of {features}: {value:.4g}"
            for name, row in self.distances.items()
            for features, value in row.items()
        ]
        if self.drawing is not None:
            peak = self.drawing.peak_bytes
            held = "" if peak is None else f", at most {size_text(peak)} of memory"
            lines.append(
                f"a picture took {self.drawing.seconds:.2f} s (median of {self.drawing.pictures}){held}"
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return all of it; `compare` reads `suite` and `prompts` again."""
        return {
            "format": FORMAT,
            "suite": {"name": self.suite.name, "format": self.suite.format, "prompts": len(self.suite.prompts),
                      "sha256": self.suite.sha256},
            "per_prompt": self.per_prompt, "request": dict(self.request), "made": dict(self.made),
            "judges": {
                judge: {name: mean.to_json() for name, mean in self.means(judge).items()} for judge in self.scores
            },
            **{name: dict(row) for name, row in self.distances.items()},
            "drawing": None if self.drawing is None else asdict(self.drawing),
            "prompts": {judge: self.by_prompt(judge) for judge in self.scores},
        }  # fmt: skip


def write_report(report: Report, folder: Path) -> None:
    """Write `report.json` and `index.html` beside the folder `pictures`. Raises OutputError."""
    atomic_write(folder / "report.json", (json.dumps(report.to_json(), indent=1) + "\n").encode())
    atomic_write(folder / "index.html", _page(report).encode("utf-8", "replace"))


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much higher a judge scores one model than another, over the prompts that both drew, paired."""

    judge: str
    first: float
    second: float
    difference: Mean

    @property
    def is_clear(self) -> bool:
        """Whether the 95 % interval leaves out zero."""
        half = self.difference.half
        return half is not None and abs(self.difference.mean) > half


def compare(first: Path, second: Path) -> list[Difference]:
    """Compare two reports of the same suite. Raises DataError for files that are none, or of different suites."""
    one, two = (_read_report(path) for path in (first, second))
    if one["suite"]["sha256"] != two["suite"]["sha256"]:
        raise DataError(f"{first} and {second} are of different suites")
    found = []
    for judge in (name for name in one["prompts"] if name in two["prompts"]):
        a, b = one["prompts"][judge], two["prompts"][judge]
        both = [key for key in a if key in b]
        if both:
            differences = mean_of([a[key] - b[key] for key in both])
            means = (sum(scores[key] for key in both) / len(both) for scores in (a, b))
            found.append(
                Difference(judge=judge, first=next(means), second=next(means), difference=differences)
            )
    if not found:
        raise DataError(f"no judge scored prompts of both {first} and {second}")
    return found


def _read_report(path: Path) -> dict[str, Any]:
    try:
        found = read_object(path, most=_MOST_BYTES)
    except (OSError, ValueError) as error:
        raise DataError(f"the report {path} can't be read: {error}") from None
    suite, prompts = found.get("suite"), found.get("prompts")
    known = found.get("format") == FORMAT and isinstance(suite, dict)
    if not known or not isinstance(prompts, dict) or not all(map(_are_scores, prompts.values())):
        raise DataError(f"{quoted(path)} isn't a report of `sanakit evaluate suite`")
    return found


def earlier_drawing(path: Path, made: Mapping[str, str]) -> Drawing | None:
    """What drawing took by an earlier report of pictures that were made the same way; None if there is none."""
    try:
        told = read_object(path, most=_MOST_BYTES)
        if told["made"] != dict(made) or told["drawing"] is None:
            return None
        return Drawing(**told["drawing"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _are_scores(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(score, int | float) and math.isfinite(score) for score in value.values()
    )


def _page(report: Report) -> str:
    title = escape(f"{report.made.get('model', 'a model')} on {report.suite.name}")
    tables = "".join(_table(judge, report.means(judge)) for judge in report.scores)
    others = "".join(f"<p>{escape(line)}" for line in report.other_lines())
    figures = "".join(_figures(report))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        f"<h1>{title}</h1>{tables}{others}<main>{figures}</main></html>\n"
    )


def _table(judge: str, means: Mapping[str, Mean]) -> str:
    rows = "".join(f"<tr><td>{escape(name)}<td>{mean}" for name, mean in means.items())
    return f"<table><tr><th>{escape(judge)}<th>mean score, 95 % interval{rows}</table>"


def _figures(report: Report) -> Sequence[str]:
    found = []
    for one in report.suite.prompts:
        for k in range(report.per_prompt):
            key = picture_key(one.key, k, report.per_prompt)
            scores = [f"{judge} {rows[key]:.1f}" for judge, rows in report.scores.items() if key in rows]
            small = escape(", ".join([*([one.category] if one.category else []), *scores]) or "not drawn")
            found.append(
                f'<figure><img src="pictures/{escape(key)}.png" loading="lazy" alt="">'
                f"<figcaption>{escape(one.prompt)}<br><small>{small}</small></figcaption></figure>"
            )
    return found
