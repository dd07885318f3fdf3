"""Rows on CPUs prove themselves: what fails, errs or crawls on this machine refuses in words, and nothing leaks out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sanakit.base.chip import this_chip
from sanakit.base.errors import ConfigError
from sanakit.kernels import choice, proof, table
from sanakit.kernels.choice import Implementation, Problem, explain, force, select
from sanakit.kernels.linear import linear
from sanakit.kernels.quant_matmul import cpu as quant_cpu
from tests.oracles.chips import AVX2, on

KEPT = (choice._select, proof._failure, proof.half_slowness)
FLOAT = Problem("linear", "cpu", torch.float32)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Nothing is remembered from one test to the next."""
    for kept in KEPT:
        kept.cache_clear()
    yield
    for kept in KEPT:
        kept.cache_clear()


def put_first(monkeypatch: pytest.MonkeyPatch, run: Callable[..., Tensor], op: str = "linear") -> None:
    """A table whose first row of an operator is `run`, which refuses nothing."""
    monkeypatch.setattr(table, "TABLE", (Implementation(op, "eager", run), *table.TABLE))


def fails(x: Tensor, weight: Tensor, bias: Tensor | None, act: str) -> Tensor:
    raise RuntimeError("could not create a primitive\nwith a trace behind it")


def errs(x: Tensor, weight: Tensor, bias: Tensor | None, act: str) -> Tensor:
    return linear(x, weight, bias, act) * 1.001


def breaks(x: Tensor, weight: Tensor, bias: Tensor | None, act: str) -> Tensor:
    return linear(x, weight, bias, act) * float("nan")


def crawls(x: Tensor, weight: Tensor, bias: Tensor | None, act: str) -> Tensor:
    """As a reference loop does: right, and hundreds of times slower."""
    time.sleep(0.02)
    return linear(x, weight, bias, act)


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (fails, "fails on this CPU: could not create a primitive"),
        (errs, "gives wrong numbers on this CPU: a small problem is off by 0.1%"),
        (breaks, "gives wrong numbers on this CPU"),
        (crawls, r"takes \d+ times as long as plain torch on this CPU"),
    ],
)
def test_what_a_trial_finds_is_a_refusal(
    monkeypatch: pytest.MonkeyPatch, run: Callable[..., Tensor], words: str
) -> None:
    put_first(monkeypatch, run)
    assert select("linear", FLOAT).name != "eager"
    line = explain(FLOAT)[0]
    assert line.startswith("linear: eager: refuses: ")
    assert "\n" not in line
    with force("linear", "eager"), pytest.raises(ConfigError, match=words):
        select("linear", FLOAT)


def test_a_row_that_keeps_its_word_is_taken_and_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def keeps(x: Tensor, weight: Tensor, bias: Tensor | None, act: str) -> Tensor:
        calls.append(x.shape)
        return linear(x, weight, bias, act)

    put_first(monkeypatch, keeps)
    assert select("linear", FLOAT).name == "eager"
    tried = len(calls)
    assert 0 < tried <= 2 + proof._ROUNDS * proof._TRIES
    choice._select.cache_clear()
    assert select("linear", Problem("linear", "cpu", torch.float32, (("training", 0),))).name == "eager"
    assert len(calls) == tried


def test_trials_touch_nothing_around_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the random numbers, nor by a default device, a dtype of autocast or modes that count operations."""
    from torch.utils.flop_counter import FlopCounterMode

    state = torch.get_rng_state()
    with (
        FlopCounterMode(display=False) as counter,
        torch.device("meta"),
        torch.autocast("cpu", torch.bfloat16),
    ):
        names = {op: select(op, Problem(op, "cpu", torch.float32)).name for op in proof.SAMPLES}
    assert torch.equal(torch.get_rng_state(), state)
    assert counter.get_total_flops() == 0
    choice._select.cache_clear()
    proof._failure.cache_clear()
    assert names == {op: select(op, Problem(op, "cpu", torch.float32)).name for op in proof.SAMPLES}


@pytest.mark.parametrize("op", proof.SAMPLES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_row_that_is_taken_here_equals_its_reference(op: str, dtype: torch.dtype) -> None:
    """Whatever a row says of this machine: one that is wrong on it is not taken."""
    rows = [row for row in table.TABLE if row.op == op]
    problem, sample = Problem(op, "cpu", dtype), proof.SAMPLES[op](dtype)
    for row in rows:
        if row.refusal(problem) is None:
            wanted = rows[-1].run(*sample).double()
            assert (row.ready(*sample)().double() - wanted).norm() <= proof._ERROR[dtype] * wanted.norm()


def test_operators_of_libraries_have_a_sample() -> None:
    """A row that calls oneDNN's operators is tried: a new one can't be forgotten."""
    from pathlib import Path

    folder = Path(choice.__file__).parent
    through = {row.op for row in table.TABLE if "onednn" in row.name}
    calls = ("torch.ops.onednn.", "torch.ops.mkldnn._convolution", "torch.ops.mkldnn._linear")
    files = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        if any(call in path.read_text(encoding="utf-8") for call in calls)
    }
    assert files == {"linear.py", "conv.py", "mix_ffn/cpu.py", "quant_matmul/cpu.py"}
    assert through == set(proof.SAMPLES)


def test_units_that_overflow_are_found_by_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """AVX2 sums pairs of unsigned by signed products in int16: a row that trusted it would be wrong by nearly all."""

    def saturating(
        values: Tensor, weight: Tensor, scales: Tensor, zeros: Tensor, dtype: torch.dtype
    ) -> Tensor:
        products = (values.int() + 128)[:, None, :] * weight.int()[None]
        pairs = torch.nn.functional.pad(products, (0, products.shape[-1] % 2)).unflatten(-1, (-1, 2)).sum(-1)
        sums = pairs.clamp(-(2**15), 2**15 - 1).sum(-1) - 128 * weight.int().sum(-1)
        return (sums * scales).to(dtype)

    monkeypatch.setattr(quant_cpu, "multiply", saturating)
    row = replace(
        table.row_of("int8_matmul", "onednn"), unsupported=lambda _: None, prepare=lambda weight: weight
    )
    reference = table.rows_of("int8_matmul")[-1]
    with on(monkeypatch, AVX2) as chip:
        assert "wrong numbers" in str(
            proof.failure("int8_matmul", row.ready, reference.ready, torch.float32, chip)
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_measured_beside_float32(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """Both kinds of products count, and the answer is kept."""
    answers = iter([None, 370.0])
    monkeypatch.setattr(proof, "_slowness", lambda *_: next(answers))
    with on(monkeypatch, AVX2) as chip:
        assert proof.half_slowness(dtype, chip) == 370.0
        assert proof.half_slowness(dtype, chip) == 370.0


def test_times_are_compared_by_their_best() -> None:
    waits = iter([0.05, *[0.0] * 20])
    assert proof._slowness(lambda: time.sleep(next(waits)), lambda: time.sleep(0.001)) is None
    times = proof._slowness(lambda: time.sleep(0.02), lambda: None)
    assert times is not None
    assert times > proof.SLOWER


@pytest.mark.skipif(torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN multiplies bf16 here")
def test_torch_walks_through_half_precision_where_there_are_no_units() -> None:
    times = proof.half_slowness(torch.bfloat16, this_chip())
    assert times is not None
    assert times > proof._HALF
