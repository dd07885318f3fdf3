"""Engines that would hold up a benchmark for hours are found on small problems and left out, in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import torch

from sanakit.benchmark import Machine, Skipped, bench, machine, pilot
from sanakit.benchmark.engines import EngineSpec, engines_of
from sanakit.benchmark.pilot import FRACTIONS, small, span, too_slow
from sanakit.benchmark.report import Row
from sanakit.benchmark.stages import STAGES, work_of
from sanakit.benchmark.workload import Work, Workload, operations
from sanakit.pipeline.shapes import shapes_of

MACHINE = Machine(products={"float32": 1e11, "bfloat16": 1e12}, copy=2e10, name="a chip", cores=2, threads=2)
ANY = EngineSpec(name="any", fast="auto")


@pytest.fixture(scope="module")
def large() -> Workload:
    return Workload(shapes=shapes_of("sana-0.6b-1024"), width=1024, height=1024, dtype=torch.float32)


@pytest.fixture
def toy() -> Workload:
    return Workload(shapes=shapes_of("toybox"), width=96, height=64, dtype=torch.float32)


@dataclass
class Clock:
    """A machine of so many operations per second with so many seconds around every piece of work."""

    speed: float
    around: float = 0.0
    now: float = 0.0
    done: list[float] = field(default_factory=list)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """In the place of the clock and of the engines."""

        def work(stage: str, workload: Workload, spec: EngineSpec, encoders: object) -> Work:
            cost = operations(stage, workload)

            def run() -> torch.Tensor:
                self.now += cost / self.speed + self.around
                self.done.append(cost)
                return torch.ones(1)

            return Work(run=run, size=0)

        monkeypatch.setattr(pilot, "work_of", work)
        monkeypatch.setattr(pilot.time, "perf_counter", lambda: self.now)


@pytest.mark.parametrize("stage", ["text", "step", "decode"])
def test_a_loop_that_takes_hundreds_of_times_as_long_is_left_out(
    stage: str, large: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(speed=2e8)
    clock.install(monkeypatch)
    reason = too_slow(stage, large, ANY, runs=4, share=120.0)
    assert reason is not None and "hours" in reason and "its share of the time is 2 minutes" in reason
    assert clock.now < 120, "finding it out takes less than its share"


@pytest.mark.parametrize("stage", ["text", "step", "decode"])
def test_a_usual_speed_passes(stage: str, large: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(speed=2e11, around=0.005)
    clock.install(monkeypatch)
    assert too_slow(stage, large, ANY, runs=4, share=120.0) is None
    assert clock.now < 5


def test_time_around_small_work_is_not_held_against_an_engine(
    large: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A quarter of a second around each run makes the smallest problem look like hours: the next says otherwise."""
    clock = Clock(speed=5e11, around=0.25)
    clock.install(monkeypatch)
    assert too_slow("step", large, ANY, runs=4, share=120.0) is None
    assert len(set(clock.done)) > 1


def test_compiling_kernels_is_not_held_against_an_engine_on_a_gpu(
    large: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton compiles at the first call, for seconds: only a later one tells the speed."""
    clock = Clock(speed=5e11)
    clock.install(monkeypatch)
    timed, calls = pilot._timed, []

    def compiling(run: Callable[[], object], workload: Workload) -> float:
        calls.append(run)
        return timed(run, replace(workload, device=torch.device("cpu"))) + (30.0 if len(calls) == 1 else 0.0)

    monkeypatch.setattr(pilot, "_timed", compiling)
    gpu = replace(large, device=torch.device("cuda"))
    assert too_slow("step", gpu, ANY, runs=4, share=120.0) is None
    calls.clear()
    assert too_slow("step", large, ANY, runs=4, share=1.0) is not None, (
        "on a CPU a long first run says enough"
    )


def test_small_problems_are_small_and_run(toy: Workload, large: Workload) -> None:
    for stage in STAGES:
        costs = [operations(stage, small(large, fraction)) for fraction in FRACTIONS]
        assert sorted(costs) == costs
        assert costs[0] < operations(stage, large) / 50
        assert torch.isfinite(work_of(stage, small(toy, 8), ANY, {}).run()).all()


def test_what_is_compiled_is_tried_as_it_is_written(toy: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[EngineSpec] = []
    monkeypatch.setattr(pilot, "_seconds", lambda stage, subject, spec: tried.append(spec) or 0.0)
    for name in ("sanakit-compiled", "sanakit-int8-compiled", "diffusers-compiled"):
        assert too_slow("step", toy, engines_of((name,))[0], 1, 1.0) is None
    assert [(spec.fast, spec.compiled) for spec in tried] == [("auto", False), ("int8", False), (None, False)]


def test_a_benchmark_goes_on_without_them(toy: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = pilot._seconds

    def slow(stage: str, subject: Workload, spec: EngineSpec) -> float:
        return 1e6 if spec.name == "diffusers" else 1e-3 * measured(stage, subject, spec)

    monkeypatch.setattr(pilot, "_seconds", slow)
    engines = engines_of(("sanakit", "sanakit-graphs", "diffusers", "sanakit-plain"))
    found = list(bench("toybox", toy, ("step",), engines, MACHINE, rounds=1, limit=600.0))
    rows = [row.engine for row in found if isinstance(row, Row)]
    without = {one.engine: one for one in found if isinstance(one, Skipped)}
    assert rows == ["sanakit", "sanakit-plain"]
    assert "records CUDA graphs" in without["sanakit-graphs"].reason
    assert str(without["diffusers"]).startswith(
        "step: diffusers is left out: by a small problem it would take"
    )
    assert without["diffusers"].to_json()["stage"] == "step"


def test_the_machine_is_not_measured_by_a_reference_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    def loop(*shape: int) -> float:
        asked.append(shape)
        return 2e8

    assert machine._best(loop) == 2e8 and asked == [machine.SMALL]
    asked.clear()
    assert machine._best(lambda *shape: asked.append(shape) or 1e11) == 1e11
    assert asked == [machine.SMALL, *machine.SHAPES]


def test_the_chip_is_named_in_words() -> None:
    chip = replace(MACHINE, name="AMD EPYC", instructions=("AVX2",))
    assert chip.lines()[0] == "AMD EPYC, 2 cores, 2 threads, AVX2"
    here = machine._described({"float32": 1.0}, 1.0, torch.device("cpu"))
    assert here.name and here.cores >= 1 and here.threads == torch.get_num_threads()


@pytest.mark.parametrize(
    ("seconds", "words"), [(45.2, "45 seconds"), (720, "12 minutes"), (12240, "3.4 hours")]
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert span(seconds) == words
