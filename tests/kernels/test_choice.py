"""The kernel table: selection, refusals, forcing and what it says about them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from sanakit.base.errors import ConfigError
from sanakit.kernels import choice, table
from sanakit.kernels.choice import Implementation, Problem, explain, force, operators, select


def _negate(x: torch.Tensor) -> torch.Tensor:
    return -x


def _small_only(problem: Problem) -> str | None:
    tokens = problem.fact("tokens")
    return None if tokens is not None and tokens <= 16 else "only up to 16 tokens"


@pytest.fixture
def two_rows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A table of two rows for the operator "negate"."""
    rows = (
        Implementation("negate", "fast", _negate, _small_only),
        Implementation("negate", "reference", torch.neg, traced=torch.neg, forward_ad=True),
    )
    monkeypatch.setattr(table, "TABLE", rows)
    choice._select.cache_clear()
    yield
    choice._select.cache_clear()


def problem(tokens: int) -> Problem:
    """A problem of `negate` with so many tokens."""
    return Problem.of("negate", torch.zeros(2), tokens=tokens)


def test_every_operator_has_a_reference_that_refuses_nothing() -> None:
    for op in operators():
        rows = [row for row in table.TABLE if row.op == op]
        assert rows[-1].name == "reference"
        for device in ("cpu", "cuda", "mps"):
            for dtype in (torch.float32, torch.bfloat16, torch.float16):
                facts = (("compiling", 1), ("tangent", 1), ("training", 1))
                assert rows[-1].refusal(Problem(op, device, dtype, facts)) is None


def test_the_first_row_that_takes_the_problem_is_chosen(two_rows: None) -> None:
    assert select("negate", problem(16)).name == "fast"
    assert select("negate", problem(17)).name == "reference"
    assert select("negate", problem(16)) is select("negate", problem(16))


def test_force_reaches_only_its_block(two_rows: None) -> None:
    with force("negate", "reference"):
        assert select("negate", problem(16)).name == "reference"
        with force("negate", "fast"):
            assert select("negate", problem(16)).name == "fast"
        assert select("negate", problem(16)).name == "reference"
    assert select("negate", problem(16)).name == "fast"


def test_a_forced_row_that_refuses_says_why(two_rows: None) -> None:
    with force("negate", "fast"), pytest.raises(ConfigError, match="only up to 16 tokens"):
        select("negate", problem(17))


def test_explain_names_every_row(two_rows: None) -> None:
    assert explain(problem(16)) == ["negate: fast: chosen", "negate: reference: able, not chosen"]
    assert explain(problem(17)) == [
        "negate: fast: refuses: only up to 16 tokens",
        "negate: reference: chosen",
    ]
    with force("negate", "reference"):
        assert explain(problem(16))[1] == "negate: reference: chosen, forced"


def test_unknown_names_are_one_sentence(two_rows: None) -> None:
    with pytest.raises(ConfigError, match="unknown operator 'absent'; known are negate"):
        select("absent", Problem("absent", "cpu", torch.float32))
    with pytest.raises(ConfigError, match="no implementation 'slow'"), force("negate", "slow"):
        pass
    with pytest.raises(ConfigError, match="both must name one operator"):
        select("other", problem(1))


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"training": 1}, "has no backward pass"),
        ({"tangent": 1}, "has no forward-mode derivative"),
        ({"compiling": 1}, "is not for a compiler, which fuses the reference"),
    ],
)
def test_what_a_row_lacks_is_a_refusal(
    two_rows: None, monkeypatch: pytest.MonkeyPatch, facts: dict[str, int], words: str
) -> None:
    bare = Implementation("negate", "bare", _negate, backward=False)
    monkeypatch.setattr(table, "TABLE", (bare, *table.TABLE))
    assert explain(problem(1))[0] == "negate: bare: chosen"
    assert explain(Problem.of("negate", torch.zeros(2), **facts))[0] == f"negate: bare: refuses: {words}"


def test_references_run_through_the_table() -> None:
    x = torch.randn(1, 5, 2, 4)
    row = select("linear_attention", Problem.of("linear_attention", x))
    assert row.run(x, x, x).shape == x.shape
