"""The cases of the editing shows: masks cover what they replace and spare the rest, verdicts hear what they should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recipes import toybox_edit as edit
from sanakit.toybox.judging import Found, Reading


def found(shape: str, colour: str, u: float, v: float = 0.7) -> Found:
    return Found(
        shape=shape, colour=colour, material="rubber", size="large", u=u, v=v, depth=0.0, presence=1.0, sure={}
    )  # fmt: skip


def reading(*objects: Found) -> Reading:
    return Reading(objects=objects, floor="grass", light="noon", sure={})


def test_an_inpainted_thing_must_be_there_and_all_else_as_before():
    case = edit.inpaint(1)
    assert case.request.source is not None and case.request.mask is not None
    before = edit._read(case.request.source.image)
    rows, columns = np.nonzero(np.asarray(case.request.mask.image.convert("L")))
    box = (columns.min() / 256, rows.min() / 256, (columns.max() + 1) / 256, (rows.max() + 1) / 256)
    assert all(side * 8 == round(side * 8) for side in box)
    covered = [o for o in before.objects if edit._inside(box, o)]
    assert len(covered) == 1  # what is replaced, and nothing else
    assert not case.done(before) and case.kept(before)
    assert not case.kept(replace(before, floor="nowhere"))
    assert not case.kept(
        replace(before, objects=()) if len(before.objects) > 1 else replace(before, light="")
    )


@pytest.mark.parametrize("number", range(3))
def test_words_of_a_region_are_the_prompts_own_and_its_box_is_the_masks(number: int):
    case = edit.placed(number)
    assert case.request.mask is not None
    (region,) = case.request.regions
    assert region.prompt in case.request.prompt
    left, top, width, height = (round(side * 256) for side in region.box)
    assert case.request.mask.image.getbbox() == (
        left,
        top,
        min(left + width + 1, 256),
        min(top + height + 1, 256),
    )
    assert case.request.replace(regions=()) == edit.inpaint(number).request


@pytest.mark.parametrize("number", range(4))
def test_words_change_one_attribute_and_no_other(number: int):
    case = edit.words(number)
    assert case.request.source is not None
    before = edit._read(case.request.source.image)
    assert case.request.prompt != case.request.source_prompt
    assert not case.done(before) and case.kept(before)
    assert not case.kept(replace(before, objects=before.objects[1:]))
    assert not case.kept(replace(before, light="nowhere"))


def test_two_things_must_stand_in_their_boxes():
    first, second, ground, whole = edit._two(0)
    one, other = (found(g.shape, g.colour or "", u) for g, u in ((first, 0.2), (second, 0.8)))
    for case in (edit.regions(0), edit.alone(0)):
        assert case.done(reading(one, other))
        assert not case.done(reading(one))
        assert not case.done(reading(replace(one, u=0.8), replace(other, u=0.2)))
        assert not case.done(reading(replace(one, v=0.1), other))
    assert (edit.regions(0).request.prompt, edit.alone(0).request.prompt) == (ground, whole)
    assert ground in whole and first.shape not in ground
