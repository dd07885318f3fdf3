"""A step of Sprint's distillation, taken apart: at width 64 as at full size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.sprint_step import config_of, measure, teacher_config, write_picture, write_teacher

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")


def test_every_part_of_a_step_is_timed_and_its_memory_planned(tmp_path: Path) -> None:
    shape = replace(teacher_config(2), width=64, heads=2, cross_heads=2, text_width=64, sample_size=2)
    write_teacher(tmp_path / "teacher", shape)
    for _ in range(2):  # a second command finds them
        write_picture(tmp_path / "pictures", 64, 6)
    found = measure(config_of(tmp_path, "fp32", size=64))
    turns = {f"{name} {part}" for name in ("student", "critic") for part in ("loss", "backward", "optimiser")}
    assert found.keys() == turns | {"teacher", "tangent", "peak", "plan"}
    assert all(value > 0 for value in found.values())


def test_the_teacher_is_the_published_kind() -> None:
    shape = teacher_config(28)
    assert (shape.depth, shape.qk_norm, shape.time_scale) == (28, True, 0.001)
