"""A student of few steps takes over what its teacher has learnt since."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recipes.toybox_follow import follow, weights_of, with_change
from sanakit.base.errors import ConfigError
from sanakit.weights import read_model_spec, read_words, resolve, write_derived

TEACHER, STUDENT = (read_model_spec(resolve(name)) for name in ("toybox", "toybox-sprint"))


def test_the_change_is_added_and_the_time_embedding_stays() -> None:
    one = torch.ones(2)
    before, after = {"time.input": one, "patch": one}, {"time.input": 5 * one, "patch": 4 * one}
    student = {"time.input": 2 * one, "patch": 2 * one, "guidance.input": 7 * one}
    found = with_change(student, before, after)
    assert {name: int(value[0]) for name, value in found.items()} == {
        "time.input": 2,
        "patch": 5,
        "guidance.input": 7,
    }


@pytest.mark.parametrize("lacking", ["student", "before"])
def test_teachers_of_another_shape(lacking: str) -> None:
    whole, less = {"patch": torch.ones(2)}, {"patch": torch.ones(3)}
    given = {"student": whole, "before": whole} | {lacking: less}
    with pytest.raises(ConfigError, match="patch is not of the same shape"):
        with_change(**given, after=whole)


def test_a_student_becomes_a_folder_with_its_teachers_text(tmp_path: Path) -> None:
    changed = {name: 1.25 * value for name, value in weights_of(TEACHER).items()}
    words = read_words(TEACHER)
    after = read_model_spec(
        write_derived(TEACHER, tmp_path / "after", changed, words=words, dtype=torch.float32)
    )
    found = read_model_spec(follow(STUDENT, TEACHER, after, tmp_path / "followed"))
    assert (found.kind, found.schedule, found.transformer) == (
        STUDENT.kind,
        STUDENT.schedule,
        STUDENT.transformer,
    )
    assert read_words(found) == words and found.about == STUDENT.about
    mine, theirs, teacher = weights_of(found), weights_of(STUDENT), weights_of(TEACHER)
    for name in ("patch.weight", "guidance.input.weight", "time.input.weight"):
        change = 0.25 * teacher[name] if name == "patch.weight" else 0.0
        torch.testing.assert_close(mine[name], theirs[name] + change, rtol=2**-8, atol=1e-6)


def test_the_same_teacher_changes_nothing(tmp_path: Path) -> None:
    found = weights_of(read_model_spec(follow(STUDENT, TEACHER, TEACHER, tmp_path / "same")))
    assert all(torch.equal(value, found[name]) for name, value in weights_of(STUDENT).items())
