"""Every key has bounds, a meaning and a line on the page; what is out of bounds, or another trainer's name, is told."""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sanakit.base import ConfigError
from sanakit.base.bounds import Bounds, bounds_of
from sanakit.training.config import TrainConfig
from sanakit.training.keys import Key, config_keys, lines, markdown
from sanakit.training.schema import ALIASES, build, other_name, put
from tests.training.sets import config, values

KEYS = list(config_keys())
NUMBERS = [key for key in KEYS if key.kind.startswith(("number", "whole number", "list of numbers"))]
PAGE = Path(__file__).resolve().parents[2] / "docs/training-keys.md"


def changed(folder: Path, name: str, value: Any) -> TrainConfig:
    given = deepcopy(values(folder))  # whose parts other tests share
    put(given, name.replace("[]", "[0]"), value)
    return build(TrainConfig, given)


def outside(key: Key) -> list[Any]:
    """Values that a numeric key must refuse."""
    first = getattr(key.hint, "__args__", [key.hint])[0]  # of a list, or of a list or null
    limits = bounds_of(key.hint) or bounds_of(first) or bounds_of(first.__args__[0])
    assert limits is not None, f"{key.name} has no bounds"
    far = [
        *([] if limits.least is None else [limits.least - (0.5 if limits.off else 1)]),
        *([] if limits.most is None else [limits.most + 1]),
        *([] if limits.above is None else [limits.above]),
        *([] if limits.below is None else [limits.below]),
    ]
    assert len(far) == 2, f"{key.name} is open on one side"
    found = [*far, "nan", ".inf", "-inf", True, 10**400, "many", {}, [[]]]
    return [[value] for value in found] if key.kind.startswith("list") else found


@pytest.mark.parametrize("key", NUMBERS, ids=lambda key: key.name)
def test_a_number_out_of_its_bounds_is_told_by_its_key(tmp_path: Path, key: Key) -> None:
    name = key.name.replace("[]", "[0]")
    for value in outside(key):
        with pytest.raises(ConfigError) as caught:
            changed(tmp_path, key.name, value)
        assert str(caught.value).startswith(name), (value, str(caught.value))
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["folder", "base", "data.path", "data.cache", "autoencoder.start"])
def test_a_name_that_is_empty_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is empty"):
        changed(tmp_path, name, "")


def test_a_recipe_is_held_to_the_same_bounds(tmp_path: Path) -> None:
    good = config(tmp_path)
    with pytest.raises(ConfigError, match="data.held is -4; it must be at least 0"):
        replace(good, data=replace(good.data, held=-4))
    with pytest.raises(ConfigError, match="ema is 2.0; it must be at least 0 and below 1"):
        replace(good, ema=2.0)


def test_every_key_says_what_it_means_and_is_on_the_page() -> None:
    assert all(key.meaning and key.kind for key in KEYS), [key.name for key in KEYS if not key.meaning]
    shown = list(lines(60))
    assert all(any(line.startswith(f"{key.name}: ") for line in shown) for key in KEYS)
    assert max(map(len, shown)) < 60
    assert {"optimizer.lr", "phases[].steps", "data.captions.dropout", "guard.spike"} <= {
        k.name for k in KEYS
    }
    assert (
        next(key.default for key in KEYS if key.name == "guard.spike") == "20"
    )  # of a run, not of the class
    assert PAGE.read_text(encoding="utf-8") == markdown(), (
        "run python -m sanakit.training.keys > docs/training-keys.md"
    )


def test_names_of_other_trainers_lead_to_keys_that_exist() -> None:
    known = {key.name.replace("[]", "[0]") for key in KEYS}
    assert {here.partition("=")[0] for here in ALIASES.values() if here} <= known
    groups = {name.partition(".")[0].partition("[")[0] for name in known}
    assert not groups & ALIASES.keys()  # a key is no other name of itself


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("learning_rate", "here it is optimizer.lr"),
        ("optimizer.learning_rate", "here it is optimizer.lr"),
        ("train_batch_size", "here it is batch"),
        ("max-train-steps", r"here it is phases\[0\].steps"),
        ("num_epochs", "counted in steps of `batch` pictures"),
        ("resolution", r"here it is phases\[0\].size"),
        ("output_dir", "here it is folder"),
        ("mixed_precision", "here it is dtype"),
        ("gradient_accumulation_steps", "here it is accumulate"),
        ("resume_from_checkpoint", "an option of the command: --resume"),
        ("batchh", "did you mean batch"),
        ("zzz", "known are folder, task"),
    ],
)
def test_a_key_that_is_unknown_names_the_one_that_is_meant(tmp_path: Path, key: str, told: str) -> None:
    with pytest.raises(ConfigError, match=f"^unknown key {re.escape(key)}; .*{told}"):
        changed(tmp_path, key, 1)
    assert other_name("zzz") is None


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("times.density", "uniform", "write times.density.name=uniform"),
        ("times.density", "gauss", "times.density.name, times.density.mean, .*e.g. times.density.name=logit_normal"),
        ("optimizer", "came", "write optimizer.name=came"),
        ("data", "pictures", "it is a group of keys: data.path, data.keys"),
        ("schedule", 3, "it is a group of keys: schedule.warmup"),
        ("phases", {"steps": 1, "size": 64}, "phases is a list of mappings"),
        ("dtype", "fp64", "input should be 'auto', 'bf16' or 'fp32'"),
        ("compile", "perhaps", "compile is 'perhaps'"),
        ("seed", "x" * 10**6, "seed is .xxx"),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_says_what_is_wanted(tmp_path: Path, key: str, value: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        changed(tmp_path, key, value)
    assert len(str(caught.value)) < 400


def test_bounds_are_told_in_words() -> None:
    assert Bounds(least=1, most=1000, off=True).words == "0 (off) or at least 1 and at most 1,000"


def test_a_group_that_may_be_left_out_may_be_null(tmp_path: Path) -> None:
    assert changed(tmp_path, "base_file", None).base_file is None
    with pytest.raises(ConfigError, match="optimizer is None; it is a group of keys"):
        changed(tmp_path, "optimizer", None)
