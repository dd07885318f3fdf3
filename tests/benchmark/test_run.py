"""The benchmark at toy size: peers compute the same, rows are complete, pictures are sums, disagreement stops it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sanakit.adapt.graphs import record
from sanakit.base import NumericsError, RequestError
from sanakit.base.threads import SETTINGS
from sanakit.benchmark import Machine, bench
from sanakit.benchmark import run as run_module
from sanakit.benchmark.engines import DEFAULT, FULL, engines_of
from sanakit.benchmark.report import Row, line, ratios
from sanakit.benchmark.stages import text_of_image
from sanakit.benchmark.timing import Contender, Timing
from sanakit.benchmark.workload import WORDS, Workload, operations, random_transformer
from sanakit.pipeline.shapes import shapes_of

FIELDS = {
    "stage", "model", "size", "dtype", "engine", "seconds", "limit_seconds", "share_of_limit", "peak_gb", "error"
}  # fmt: skip
MACHINE = Machine(products={"float32": 1e11, "bfloat16": 1e12, "int8": 4e12}, copy=2e10, name="2 threads")


@pytest.fixture(scope="module")
def workload() -> Workload:
    return Workload(shapes=shapes_of("toybox"), width=96, height=64, dtype=torch.float32)


@pytest.fixture(scope="module")
def rows(workload: Workload) -> list[Row]:
    engines = engines_of(("sanakit", "sanakit-plain", "diffusers"))
    found = bench("toybox", workload, ("text", "step", "decode"), engines, MACHINE, rounds=1)
    return [row for row in found if isinstance(row, Row)]


def test_every_stage_has_every_engine_and_a_picture(rows: list[Row]) -> None:
    assert [(row.stage, row.engine) for row in rows] == [
        (stage, engine)
        for stage in ("text", "step", "decode", "picture")
        for engine in ("sanakit", "sanakit-plain", "diffusers")
    ]


def test_engines_agree_with_the_exact_one(rows: list[Row]) -> None:
    for row in rows:
        assert row.error is None or row.error < 1e-4, row
    assert {row.engine for row in rows if row.error is None and row.stage == "step"} == {"sanakit-plain"}


def test_rows_are_consistent(rows: list[Row], workload: Workload) -> None:
    for row in rows:
        assert row.low <= row.seconds <= row.high
        assert row.share_of_limit == pytest.approx(row.limit_seconds / row.seconds)
        assert set(row.to_json()) >= FIELDS
    step = next(row for row in rows if row.stage == "step")
    assert step.limit_seconds == pytest.approx(operations("step", workload) / 1e11)
    parts = {row.stage: row.seconds for row in rows if row.engine == "sanakit"}
    assert parts["picture"] == pytest.approx(parts["text"] + 20 * parts["step"] + parts["decode"])


def test_operations_grow_with_the_picture(workload: Workload) -> None:
    larger = replace(workload, width=192, height=128)
    assert operations("decode", larger) == pytest.approx(4 * operations("decode", workload), rel=0.01)
    assert operations("step", larger) / operations("step", workload) == pytest.approx(4, rel=0.05)
    assert operations("text", larger) == operations("text", workload)


def test_the_published_size_counts_what_is_known_of_it() -> None:
    found = Workload(shapes=shapes_of("sana-0.6b-1024"), width=1024, height=1024, dtype=torch.bfloat16)
    assert operations("decode", found) == pytest.approx(8.37e12, rel=0.01)
    assert operations("step", found) == pytest.approx(1.92e12, rel=0.02)


def test_engines_that_disagree_are_not_timed(workload: Workload) -> None:
    strict = [replace(spec, differs=1e-12) for spec in engines_of(("sanakit-plain", "diffusers"))]
    with pytest.raises(NumericsError, match="diffusers differs from sanakit-plain|sanakit differs"):
        list(bench("toybox", workload, ("step",), strict, MACHINE, 1))


def test_words_about_rows(rows: list[Row]) -> None:
    assert "sanakit-plain" in line(rows[1])
    told = ratios(rows)
    assert told[0].startswith("text: against sanakit: sanakit-plain ")
    assert len(told) == 8  # two engines of ours in four stages


def test_unknown_engines_are_refused() -> None:
    assert set(DEFAULT) <= set(FULL)
    with pytest.raises(RequestError, match="no engine 'warp' to time: choose from sanakit, "):
        engines_of(("warp",))


def test_ours_is_timed_on_the_threads_of_a_picture(
    workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Peers run as they are, on torch's own number."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    seen: dict[str, int] = {}

    def see(contenders: dict[str, Contender], *rest: object) -> dict[str, Timing]:
        for name, contender in contenders.items():
            seen[name] = contender.threads or 0
        return {name: Timing(seconds=(1.0,), added=None, result=torch.ones(1)) for name in contenders}

    monkeypatch.setattr(run_module, "alternate", see)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr("sanakit.base.threads.available_cores", lambda: 4)
    list(bench("toybox", workload, ("step",), engines_of(("sanakit", "diffusers")), MACHINE, 1))
    assert seen == {"sanakit": 2, "diffusers": 0}


def test_a_sprint_picture_has_two_steps_of_one_branch_and_may_be_decoded_by_others() -> None:
    shapes = shapes_of("toybox")
    sprint = replace(shapes, transformer=replace(shapes.transformer, depth=1, guidance_embed=True))
    workload = Workload(shapes=sprint, width=64, height=64, dtype=torch.float32)
    other = replace(
        shapes.autoencoder,
        decoder=tuple(replace(s, depth=min(s.depth, 1)) for s in shapes.autoencoder.decoder),
    )
    engines = engines_of(("sanakit", "diffusers"))
    found = bench(
        "toybox", workload, ("text", "step", "decode"), engines, MACHINE, rounds=1, decoders={"small": other}
    )
    rows = {(row.stage, row.engine): row for row in found if isinstance(row, Row)}
    stages = ("text", "step", "decode", "decode small", "picture", "picture small")
    assert list(rows) == [(stage, engine) for stage in stages for engine in ("sanakit", "diffusers")]
    assert all(row.error is None or row.error < 1e-4 for row in rows.values())
    for engine in ("sanakit", "diffusers"):
        seconds = {stage: rows[stage, engine].seconds for stage in stages}
        for picture, decode in (("picture", "decode"), ("picture small", "decode small")):
            assert seconds[picture] == pytest.approx(seconds["text"] + 2 * seconds["step"] + seconds[decode])
    whole, small = (rows[stage, "sanakit"].limit_seconds for stage in ("decode", "decode small"))
    assert small < whole
    guided = replace(
        workload, shapes=replace(sprint, transformer=replace(sprint.transformer, guidance_embed=False))
    )
    assert operations("step", workload) < 0.6 * operations("step", guided)
    assert operations("text", workload) < operations("text", guided)


def test_a_recording_pads_the_text_and_still_answers_alike(workload: Workload) -> None:
    """What it pads with is hidden, so rows of engines with CUDA graphs may stand beside the others."""
    network = random_transformer(workload.shapes.transformer, torch.float32)
    recorded = record(network, lambda run: (run(), lambda: None))
    noise, time = workload.noise(workload.branches, torch.float32), torch.tensor([500.0])
    words = workload.words(torch.float32, WORDS)
    with torch.no_grad():
        wanted, found = (
            model(noise, time, text_of_image(model, words)).clone() for model in (network, recorded)
        )
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
