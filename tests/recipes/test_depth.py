"""Recipes about depth and choosing: networks that grow, blocks that go, and what the best of N is worth."""

from __future__ import annotations

from argparse import ArgumentTypeError
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import torch

from recipes import best_of, grow, prune_choice
from recipes.best_of_curves import Drawn, curve, draft_curve, interval, sizes, table, until_curve
from recipes.best_of_curves import best_of as best_value
from sanakit.evaluation.importance import BlockImportance
from sanakit.training import read_journal
from sanakit.weights import read_model_spec
from tests.training.sets import cache, pictures

SHAPE = {"width": 32, "heads": 1, "cross_heads": 1}


def test_a_network_grows_from_the_shallow_one_of_its_seed(tmp_path: Path) -> None:
    for name in ("shallow", "partial"):
        config = grow.config_of(
            name, 1, 2, pictures=pictures(), cache=cache(), size=64, runs=tmp_path, held=4, look=1, batch=4, shape=SHAPE
        )  # fmt: skip
        grow.train(replace(config, dtype="fp32"))  # as all that share the cache
    depths = {
        name: read_model_spec(tmp_path / f"{name}-1/model").transformer.depth
        for name in ("shallow", "partial")
    }
    assert depths == {"shallow": grow.SHALLOW, "partial": grow.DEEP}
    assert list(read_journal(tmp_path / "partial-1", kind="validation")) == [1, 2]
    grow.train(config)  # is there
    assert grow.config_of("steep", 0, 9).model.changes["qk_norm"] is False


def write_run(folder: Path, losses: dict[int, float]) -> None:
    folder.mkdir(parents=True)
    lines = (f'{{"step": {step}, "kind": "validation", "loss": {loss}}}' for step, loss in losses.items())
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n")


def test_steps_to_equal_loss_lie_between_two_looks(tmp_path: Path) -> None:
    for seed, ends in enumerate((0.5, 0.6)):
        write_run(tmp_path / f"scratch-{seed}", {25: 1.0, 50: 0.8, 75: ends})
        write_run(tmp_path / f"partial-{seed}", {25: 0.7, 50: 0.3 + seed / 10, 75: 0.2})
    runs = grow.curve("partial", 2, tmp_path)
    assert grow.reached(runs, [0.5, 0.6]) == pytest.approx([37.5, 25 + 25 / 3])
    assert grow.reached(runs, [0.1, 0.7]) == [
        25.0
    ]  # the first seed never has it; the second at its first look
    rows = grow.table(2, tmp_path).splitlines()[2:]
    assert rows[0].startswith("| scratch | 2 | 1.000 ± 0.000 | 0.800 ± 0.000 | 0.550 ± 0.071 | 75 ± 0 |")
    assert rows[1].endswith("| 35 ± 3 |")


def test_the_choice_of_blocks_is_held_against_all_others() -> None:
    assert sorted(prune_choice.choices(5, 3)) == [(0, 1, 4), (0, 2, 4), (0, 3, 4)]
    held = prune_choice.held_out("toybox", 4, pictures=pictures(), cache=cache(), size=64)
    assert held.apart(held.whole)[0] == 0.0
    # A measure that holds what is true of the first choice, and one that holds the opposite.
    found = [BlockImportance(block=n, rise=1.0 / (n + 1), similarity=1.0 / (n + 1)) for n in range(10)]
    rows = [row.split(" | ") for row in prune_choice.rows(held, found, 3)]
    assert [row[1] for row in rows] == ["by rise", "by similarity", "best of all", "at random"]
    assert rows[0][2] == "0, 1, 9" and rows[1][2] == "0, 8, 9" and rows[2][5].startswith("1 of 8")
    assert 0 < float(rows[2][3]) <= min(float(rows[0][3]), float(rows[1][3]))


def test_the_best_of_n_is_the_mean_over_all_choices() -> None:
    generator = torch.Generator().manual_seed(0)
    scores, values = torch.rand(3, 6, generator=generator), torch.rand(3, 6, generator=generator)
    for n in (1, 2, 4, 6):
        wanted = [
            sum(float(values[row, max(chosen, key=lambda k: float(scores[row, k]))]) for chosen in groups) / len(groups)
            for row in range(3)
            for groups in [list(combinations(range(6), n))]
        ]  # fmt: skip
        assert best_value(scores, values, n).tolist() == pytest.approx(wanted, rel=1e-5)
    assert sizes(6) == [1, 2, 4] and sizes(32) == [1, 2, 4, 8, 16, 32]


def test_intervals_hold_the_mean_and_are_wider_for_few_prompts() -> None:
    few, many = torch.tensor([0.0, 1.0] * 5).double(), torch.tensor([0.0, 1.0] * 50).double()
    mean, low, high = interval(few)
    assert low < mean == 0.5 < high and (high - low) > 2 * (interval(many)[2] - interval(many)[1])
    assert interval(torch.ones(16).double()) == (1.0, pytest.approx(0.806, abs=1e-3), 1.0)
    # Bars of a plot have no negative length, and what is always right is so for all numbers of candidates.
    assert interval(torch.full((120,), 1 + 3e-15, dtype=torch.float64)) == interval(torch.ones(120).double())
    mean, low, high = interval(torch.full((121,), 1 / 3, dtype=torch.float64))
    assert low <= mean <= high


def test_curves_cost_what_was_drawn() -> None:
    found = Drawn(
        scores={"one": [[1.0, 3.0], [2.0, 1.0]]}, right={"other": [[False, True], [False, True]]},
        seconds={"denoise": 0.5, "decode": 0.25, "judge": 0.25},
    )  # fmt: skip
    drafts = Drawn(scores=found.scores, right={}, seconds={"denoise": 0.1})
    shares = [(n, seconds, share[0]) for n, seconds, share in curve(found, "one", "other")]
    assert shares == [(1, 1.0, 0.5), (2, 2.0, 0.5)]
    assert [seconds for _, seconds, _ in draft_curve(drafts, found, "one", "other")] == pytest.approx(
        [1.1, 1.2]
    )
    assert table({"a": curve(found, "one", "other")}).splitlines()[2].startswith("| 1 | 50.0% (")


def test_drawing_until_one_is_right_costs_what_was_drawn() -> None:
    found = Drawn(
        scores={"one": [[90.0], [5.0, 95.0], [5.0, 7.0, 6.0, 1.0]]},
        right={
            "one": [[True], [False, True], [False] * 4],
            "other": [[True], [False, False], [False, True, False, False]],
        },
        seconds={"denoise": 1.0},
    )  # fmt: skip
    own = until_curve(found, "one", "one", 4)
    assert [(n, share[0]) for n, _, share in own] == [
        (1, pytest.approx(1 / 3)),
        (2, pytest.approx(2 / 3)),
        (4, pytest.approx(2 / 3)),
    ]
    assert [seconds for _, seconds, _ in own] == pytest.approx([1.0, 5 / 3, 7 / 3])
    # The other judge finds the second prompt's choice wrong, and the third's best of all right.
    assert [share[0] for _, _, share in until_curve(found, "one", "other", 4)] == pytest.approx(
        [1 / 3, 2 / 3, 2 / 3]
    )


def test_models_that_are_held_against_each_other_have_names_of_their_own() -> None:
    assert best_of.other("toybox:20") == ("toybox", 20)
    assert best_of.other("runs/recover/0-1/100-steps/model:4")[1] == 4
    with pytest.raises(ArgumentTypeError, match="MODEL:STEPS"):
        best_of.other("toybox")
    small, whole = (
        best_of.folder_of(f"runs/recover/{blocks}/100-steps/model", 4) for blocks in ("0-1", "0-2")
    )
    assert small != whole and small.parent == best_of.RUNS
    assert best_of.label("toybox-sprint", 1) == "toybox-sprint, 1 step"


def test_candidates_are_drawn_once_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(best_of, "RUNS", tmp_path)
    monkeypatch.setattr(best_of, "JUDGES", {"shipped": best_of.FOLDER})
    prompts = best_of.trials(2)
    folder = best_of.folder_of("toybox-sprint", 1)
    model = best_of.load("toybox-sprint", device="cpu", together=2)
    folder.mkdir()
    assert list(best_of.draw(model, 1, 3, prompts, folder)) == [3, 3]
    assert best_of.is_drawn("toybox-sprint", 1, 2) and not best_of.is_drawn("toybox-sprint", 1, 3)
    monkeypatch.setattr(best_of, "draw_prompt", lambda *rest: pytest.fail("it was drawn already"))
    assert list(best_of.draw(model, 1, 2, prompts, folder)) == [3, 3]
    fewer = folder / "001.json"  # of prompts with different numbers of candidates, so many count as all have
    fewer.write_text(fewer.read_text().replace('"count": 3', '"count": 2'))
    found = best_of.all_curves(prompts, "toybox-sprint", 1, None, [("toybox", 20)])
    [(name, rows)] = found.items()
    assert name.startswith("toybox-sprint, 1 step: the shipped judge chooses") and [
        row[0] for row in rows
    ] == [1, 2]
    [*until] = best_of.all_curves(prompts, "toybox-sprint", 1, 3, [])
    assert until == ["toybox-sprint, 1 step, until the shipped judge finds one right; the shipped one scores"]
