"""What recipes make of the figures they have kept: tables, and runs that belong together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recipes import ablations, curves, solvers, toybox_levers
from recipes.ablations import VARIANTS, config_of, network
from sanakit.transformer import PRESETS, TransformerConfig


def test_variants_are_of_one_size_and_differ() -> None:
    shape = TransformerConfig(**{**vars(PRESETS["toybox"]), **ablations.SMALL})
    sizes = {
        name: sum(p.numel() for p in network(variant, shape, 0).parameters())
        for name, variant in VARIANTS.items()
    }
    assert max(sizes.values()) < 1.002 * min(sizes.values())
    told = {name: (variant, config_of(name, 0, 10).optimizer) for name, variant in VARIANTS.items()}
    assert len({repr(value) for value in told.values()}) == len(VARIANTS)
    assert len({config_of(name, seed, 10).folder for name in VARIANTS for seed in range(3)}) == 3 * len(
        VARIANTS
    )


def test_a_table_of_ablations_has_means_and_spreads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablations, "RUNS", tmp_path)
    for name, losses in (("sana", (0.5, 0.7, 0.9)), ("CAME", (0.4, 0.5))):
        for seed, loss in enumerate(losses):
            folder = config_of(name, seed, 7).folder
            folder.mkdir(parents=True)
            found = {"loss": loss, "score": 0.25, "frechet": 2.0}
            (folder / "result.json").write_text(json.dumps(found))
    assert ablations.table(7).splitlines()[2:] == [
        "| sana | 3 | 0.700 ± 0.200 |  | 0.250 ± 0.000 | 2.000 ± 0.000 |",
        "| CAME | 2 | 0.450 ± 0.071 | -0.150 ± 0.071 | 0.250 ± 0.000 | 2.000 ± 0.000 |",
    ]


def test_levers_are_compared_from_one_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fresh weights have no row without training, and no pictures that a judge could read."""
    monkeypatch.setattr(toybox_levers, "FOLDER", tmp_path)
    share = {"accuracy": 0.5}
    judged = {"overall": share, "two": {"overall": {"accuracy": 0.25}}, "score": 0.75, "frechet": 2.0}
    found = {
        "steps": 7, "loss": {str(t): 0.125 for t in toybox_levers.TIMES}, "head": {}, "bound": 0.01, "told_apart": 0.6,
    }  # fmt: skip
    for fresh in (False, True):
        comparison = toybox_levers.Comparison(9.0, 64, fresh)
        path = comparison.result("muon")
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(found | ({} if fresh else judged)))
        head, rule, row = toybox_levers.table(comparison)
        assert head.count("|") == rule.count("|") == row.count("|")
        assert ("50.0% | 25.0% | 0.750 | 2.00" in row) is not fresh
        assert ("shipped" in comparison.variants) is not fresh
    monkeypatch.setattr("sys.argv", ["toybox_levers", "shipped", "--fresh"])
    with pytest.raises(SystemExit, match="2"):
        toybox_levers.main()
    assert "leave out `shipped`" in capsys.readouterr().err


def test_curves_of_seeds_belong_together() -> None:
    found = curves.kinds_of_run([Path("runs/CAME-0"), Path("runs/CAME-8bit-0"), Path("runs/CAME-1")])
    assert {name: len(runs) for name, runs in found.items()} == {"CAME": 2, "CAME-8bit": 1}


def test_a_table_of_solvers_has_both_side_by_side() -> None:
    cells = {key: {"right": 3, "of": 4, "psnr": 30.0 + key[1]} for key in solvers.every_cell()}
    rows = solvers.table(cells).splitlines()
    assert len(rows) == 2 + len(solvers.STEPS)
    assert rows[2] == "| 5 | 75.0% (30.1% to 95.4%) | 35.0 | 75.0% (30.1% to 95.4%) | 35.0 |"


def test_psnr_of_pictures() -> None:
    black = Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8))
    grey = Image.fromarray(np.full((4, 4, 3), 51, dtype=np.uint8))
    assert solvers.psnr(black, grey) == pytest.approx(20 * np.log10(5))
    assert solvers.psnr(grey, grey) > 75
