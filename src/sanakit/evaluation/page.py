"""The page that shows every prompt, its image and its verdict: one HTML file beside a folder of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from sanakit.base.files import atomic_write
from sanakit.evaluation.measures import Share
from sanakit.evaluation.toybox import FIGURES, Outcome, Summary

STYLE = """
:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif }
body { max-width: 80rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .2rem .8rem; text-align: left }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1rem }
figure { margin: 0; padding: .5rem; border-radius: .5rem; border: 2px solid #2a8 } figure.wrong { border-color: #c43 }
img { width: 100%; border-radius: .3rem } figcaption { font-size: .85rem } .fault { color: #c43 }
"""


def write_page(
    path: Path,
    title: str,
    found: Sequence[Outcome],
    files: Sequence[str],
    summary: Summary,
    judge_accuracy: Mapping[str, Mapping[str, tuple[int, int]]],
) -> None:
    """Write the page; `files` are the images' paths relative to it. Raises OutputError."""
    figures = "\n".join(_figure(outcome, file) for outcome, file in zip(found, files, strict=True))
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style><h1>{escape(title)}</h1>"
        f"{_scores(summary)}{_judge(judge_accuracy)}<main>{figures}</main></html>\n"
    )
    atomic_write(path, text.encode())


def _scores(summary: Summary) -> str:
    figures = ((name, getattr(summary, name)) for name in FIGURES)
    rows = "".join(f"<tr><td>{name}<td>{value:.4f}" for name, value in figures if value is not None)
    tables = _shares("category", {"overall": summary.overall, **summary.categories}, rows)
    return tables + (
        _shares("in phrasings that training lacks", summary.phrasings) if summary.phrasings else ""
    )


def _shares(title: str, shares: Mapping[str, Share], more: str = "") -> str:
    rows = "".join(f"<tr><td>{name}<td>{share}" for name, share in shares.items())
    return f"<table><tr><th>{title}<th>share correct [95 % interval]{rows}{more}</table>"


def _judge(accuracy: Mapping[str, Mapping[str, tuple[int, int]]]) -> str:
    tables = ""
    for condition, rows in accuracy.items():
        lines = "".join(f"<tr><td>{name}<td>{Share(hits=right, n=n)}" for name, (right, n) in rows.items())
        tables += f"<table><tr><th colspan=2>the judge itself, on held-out scenes {condition}{lines}</table>"
    return f"<details><summary>How often the judge is right</summary>{tables}</details>"


def _figure(outcome: Outcome, file: str) -> str:
    verdict = outcome.verdict
    faults = "".join(f'<div class="fault">{escape(fault)}</div>' for fault in verdict.faults)
    return (
        f'<figure class="{"right" if verdict.correct else "wrong"}"><img src="{escape(file)}" loading="lazy" alt="">'
        f"<figcaption>{escape(outcome.trial.prompt)}<br><small>{outcome.trial.category}, seed {outcome.seed}, "
        f"score {verdict.score:.2f}</small>{faults}</figcaption></figure>"
    )
