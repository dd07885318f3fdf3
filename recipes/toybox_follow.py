"""Toybox-Sprint follows its teacher: what Toybox has learnt since the student was distilled is added to the student.

    python -m recipes.toybox_follow --before FOLDER --out runs/followed

FOLDER is Toybox as it was when the student was distilled, such as src/sanakit/toybox/model of a former commit. The
change of the teacher's weights since then is added to the student's (task arithmetic, arXiv 2212.04089), and the folder
gets the teacher's own text encoder. That takes seconds and no training; distil further from there with
`python -m recipes.toybox_sprint --student runs/followed`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from recipes.settings import resumable
from sanakit.base.errors import ConfigError, SanakitError
from sanakit.base.precision import CPU
from sanakit.training.tasks.network import load_base
from sanakit.transformer import SanaTransformer
from sanakit.weights import ModelSpec, read_model_spec, read_words, resolve, write_derived

TIMES = "time."
"""Begins the names of the time embedding. The student's reads times in other units than the teacher's, and stays."""

Weights = Mapping[str, Tensor]


def with_change(student: Weights, before: Weights, after: Weights) -> dict[str, Tensor]:
    """A student's weights, with the change of its teacher's from `before` to `after` added; the time embedding stays.

    Raises ConfigError if the teachers differ in shape, or the student lacks a tensor of theirs.
    """
    moved = [name for name in after if not name.startswith(TIMES)]
    for name in moved:
        if any(name not in other or other[name].shape != after[name].shape for other in (student, before)):
            raise ConfigError(f"{name} is not of the same shape in the student and in both teachers")
    return {**student, **{name: student[name] + (after[name] - before[name]) for name in moved}}


def weights_of(spec: ModelSpec) -> Weights:
    """A model's transformer in float32, by the library's own names."""
    return load_base(spec, torch.float32, CPU).state_dict()


def follow(student: ModelSpec, before: ModelSpec, after: ModelSpec, out: Path) -> Path:
    """Write the student with the change of its teacher, beside the teacher's own text encoder and autoencoder."""
    weights = with_change(weights_of(student), weights_of(before), weights_of(after))
    return write_student(student, after, weights, out)


def write_student(
    student: ModelSpec, teacher: ModelSpec, weights: Weights | SanaTransformer, out: Path
) -> Path:
    """Write new weights of a student in bf16, with its own schedule and the other parts of its teacher."""
    spec = replace(
        teacher,
        kind=student.kind,
        schedule=student.schedule,
        transformer=student.transformer,
        pag=student.pag,
    )
    words, about = read_words(teacher), student.about
    return write_derived(spec, out, weights, words=words, about=about, dtype=torch.bfloat16, force=True)


@resumable
def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", required=True, help="the teacher that the student was distilled from")
    parser.add_argument("--teacher", default="toybox", help="the teacher as it is now")
    parser.add_argument("--student", default="toybox-sprint")
    parser.add_argument("--out", type=Path, default=Path("runs/followed"))
    given = parser.parse_args()
    try:
        student, before, teacher = (
            read_model_spec(resolve(name)) for name in (given.student, given.before, given.teacher)
        )
        print(f"{follow(student, before, teacher, given.out)} is written")
    except SanakitError as error:
        print(f"error: {error}.", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
