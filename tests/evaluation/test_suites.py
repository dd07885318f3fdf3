"""Suites of prompts in the formats of others, what is reported of them, and two models compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sanakit.base.errors import DataError
from sanakit.evaluation.geneval import GENEVAL
from sanakit.evaluation.measures import CONFIDENT
from sanakit.evaluation.suite_report import TASKS, Drawing, Report, compare, earlier_drawing, write_report
from sanakit.evaluation.suites import Suite, SuitePrompt, read_suite

LINES = (
    '{"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}\n'
    '{"tag": "counting", "include": [{"class": "cup", "count": 2}], "prompt": "a photo of two cups"}\n'
)


def rows(path: Path) -> list[tuple[str, str, str]]:
    return [(one.key, one.category, one.prompt) for one in read_suite(path).prompts]


def test_formats_of_others(tmp_path: Path):
    (tmp_path / "evaluation_metadata.jsonl").write_text(LINES)
    assert read_suite(tmp_path / "evaluation_metadata.jsonl").format == "geneval"
    assert rows(tmp_path / "evaluation_metadata.jsonl") == [
        ("00000", "single_object", "a photo of a bench"),
        ("00001", "counting", "a photo of two cups"),
    ]
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts/partiprompts102.txt").write_text("a cat,\n asleep\n")
    assert read_suite(tmp_path / "prompts").format == "dpg"
    assert rows(tmp_path / "prompts") == [("partiprompts102", "", "a cat, asleep")]
    table = {"1a2b": {"category": "animals", "prompt": "a fox"}}
    (tmp_path / "meta_data.json").write_text(json.dumps(table))
    assert read_suite(tmp_path / "meta_data.json").format == "mjhq"
    assert rows(tmp_path / "meta_data.json") == [("1a2b", "animals", "a fox")]
    (tmp_path / "own.txt").write_text('a cube\n\n{"prompt": "a cone", "category": "solids", "key": "cone"}\n')
    assert rows(tmp_path / "own.txt") == [("00000", "", "a cube"), ("cone", "solids", "a cone")]


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("a.txt", "\n", "holds no prompt"),
        ("a.json", "[]", "isn't a JSON object"),
        ("a.json", '{"x/y": {"prompt": "a cat"}}', "can't be the name of a picture"),
        ("a.jsonl", '{"tag": "counting"}', "'00000' has no prompt"),
        ("a.jsonl", '{"prompt": "a", "key": "k"}\n{"prompt": "b", "key": "k"}', "'k' comes twice"),
    ],
)
def test_what_is_no_suite_is_refused(tmp_path: Path, name: str, text: str, fault: str):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=fault):
        read_suite(tmp_path / name)
    with pytest.raises(DataError, match="can't be read"):
        read_suite(tmp_path / "not-there.txt")


SUITE = Suite(
    name="own", format="prompts",
    prompts=tuple(SuitePrompt(key=key, prompt=f"a {key}", category=key[0]) for key in ("a1", "a2", "b1")),
)  # fmt: skip


def report(scores: dict[str, float], suite: Suite = SUITE) -> Report:
    return Report(
        suite=suite, per_prompt=2, request={"seed": 0}, made={"model": "tiny"}, scores={"marks": scores}, distances={}
    )  # fmt: skip


SCORES = {"a1-0": 10.0, "a1-1": 20.0, "a2-0": 30.0, "a2-1": 50.0, "b1-0": 1.0, "b1-1": 3.0}


def test_pictures_of_a_prompt_count_as_their_mean_and_half_drawn_prompts_not():
    means = report(SCORES).means("marks")
    assert {name: (mean.mean, mean.n) for name, mean in means.items()} == {
        "overall": (pytest.approx(19.0), 3), "a": (27.5, 2), "b": (2.0, 1),
    }  # fmt: skip
    # 15 and 40: their standard error is 12.5.
    assert means["a"].half == pytest.approx(CONFIDENT * 12.5)
    assert report({key: score for key, score in SCORES.items() if key != "b1-1"}).means("marks").keys() == {
        "overall",
        "a",
    }


def test_genevals_own_score_is_the_mean_of_its_tasks(tmp_path: Path):
    drawing = Drawing(pictures=6, seconds=1.5, peak_bytes=3 << 30)
    found = Report(
        suite=SUITE, per_prompt=2, request={}, made={"model": "tiny"}, scores={GENEVAL: SCORES},
        distances={"frechet": {"eyes": 1.25}, "kernel": {"eyes": 0.5}}, drawing=drawing,
    )  # fmt: skip
    means = found.means(GENEVAL)
    assert means[TASKS].mean == pytest.approx((27.5 + 2.0) / 2)
    assert means[TASKS].half is None and means[TASKS].n == 3  # b has a single prompt
    write_report(found, tmp_path)
    told = json.loads((tmp_path / "report.json").read_text())
    assert (told["frechet"], told["kernel"]) == ({"eyes": 1.25}, {"eyes": 0.5})
    page = (tmp_path / "index.html").read_text()
    assert "Kernel distance in the features of eyes: 0.5" in page
    assert "a picture took 1.50 s (median of 6), at most 3.0 GiB of memory" in page
    assert earlier_drawing(tmp_path / "report.json", {"model": "tiny"}) == drawing
    assert earlier_drawing(tmp_path / "report.json", {"model": "other"}) is None
    assert earlier_drawing(tmp_path / "none.json", {}) is None


def test_pictures_are_keyed_and_seeded_by_their_prompt():
    items = SUITE.items(2, 7, {"steps": 3})
    assert [(one.key, one.request.seed, one.request.count) for one in items[:3]] == [
        ("a1-0", 7, 1), ("a1-1", 8, 1), ("a2-0", 7, 1),
    ]  # fmt: skip
    assert [one.key for one in SUITE.items(1, 7, {})] == ["a1", "a2", "b1"]


def test_two_reports_are_compared_prompt_by_prompt(tmp_path: Path):
    better = {key: score + 5 + (key == "b1-1") for key, score in SCORES.items()}
    for name, scores in (("one", better), ("two", SCORES)):
        (tmp_path / name).mkdir()
        write_report(report(scores), tmp_path / name)
    paths = tmp_path / "one/report.json", tmp_path / "two/report.json"
    (found,) = compare(*paths)
    assert (found.first - found.second) == pytest.approx(found.difference.mean) == pytest.approx(5 + 1 / 6)
    assert found.is_clear and found.difference.n == 3
    assert not compare(paths[0], paths[0])[0].is_clear
    page = (tmp_path / "one/index.html").read_text()
    assert 'src="pictures/a1-0.png"' in page and "marks 15.0" in page
    other = Suite(name="own", format="prompts", prompts=SUITE.prompts[:2])
    write_report(report(SCORES, other), tmp_path / "two")
    with pytest.raises(DataError, match="different suites"):
        compare(*paths)
    paths[1].write_text("{}")
    with pytest.raises(DataError, match="a report"):
        compare(*paths)
