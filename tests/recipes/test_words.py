"""The recipe that asks whether new words can be learnt: its icons differ, its runs in the text encoder alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from recipes.words import VARIANTS, WORDS, draw_icon, run_config


def test_icons_are_told_apart_by_the_measure_that_judges_them() -> None:
    icons = np.stack([np.asarray(draw_icon(number), dtype=np.float32) for number in range(len(WORDS))])
    apart = ((icons[:, None] - icons[None]) ** 2).mean(axis=(2, 3, 4))
    np.fill_diagonal(apart, np.inf)
    assert len(set(WORDS)) == 60 and apart.min() > 100


def test_the_runs_differ_in_the_text_encoder_alone(tmp_path: Path) -> None:
    runs = [run_config(tmp_path, variant, steps=3) for variant in VARIANTS]
    first = runs[0]
    assert len({run.text for run in runs}) == 3
    assert all(replace(run, folder=first.folder, text=first.text) == first for run in runs)
