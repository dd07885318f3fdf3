"""Cells of Toybox pictures, and the head that reads them: against the renderer's view; what the head touches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from recipes.toybox_alignment import (
    KINDS,
    NOTHING,
    WORDS,
    Aligned,
    AlignmentHead,
    Cells,
    alignment_loss,
    cells_of,
    hits,
)
from recipes.toybox_model import TOKENS, Captions, fresh_networks
from sanakit.toybox import Scene, SceneObject, render, sample_scene
from sanakit.toybox.grammar import COLOURS, SHAPES
from sanakit.toybox.sampling import view

OBJECT = KINDS.index("object")


def thing(shape: str, colour: str, x: float, z: float, size: str = "large") -> SceneObject:
    return SceneObject(shape=shape, colour=colour, material="rubber", size=size, x=x, z=z, yaw=0.4)


def scene_of(*things: SceneObject) -> Scene:
    return Scene(objects=things, floor="sand", light="noon", seed=5)


def test_cells_cover_what_the_renderer_sees() -> None:
    """Areas and boxes of `view`, in cells of an eighth of the picture."""
    for seed in range(12):
        scene = sample_scene(seed)
        things = cells_of([scene]).things[0]
        shown = things[0] == OBJECT
        area = sum(sight.area for sight in view(scene)) * 64
        assert float(shown.sum()) == pytest.approx(area, rel=0.4, abs=3)
        left, top = (min(sight.box[axis] for sight in view(scene)) * 8 for axis in (0, 1))
        right, bottom = (max(sight.box[axis] for sight in view(scene)) * 8 for axis in (2, 3))
        rows, columns = shown.nonzero().unbind(1)
        assert left - 1 < int(columns.min())
        assert int(columns.max()) < right
        assert top - 1 < int(rows.min())
        assert int(rows.max()) < bottom


def test_cells_have_the_words_of_the_nearer_object() -> None:
    far, near = thing("cube", "blue", 0.0, 8.4), thing("sphere", "red", 0.2, 6.0)
    for objects in ((far, near), (near, far)):
        things = cells_of([scene_of(*objects)]).things[0]
        assert things[1, 5, 4] == SHAPES.index("sphere")
        assert things[2, 5, 4] == COLOURS.index("red")
    alone = cells_of([scene_of(far)]).things[0]
    assert set(alone[2][alone[0] == OBJECT].tolist()) == {COLOURS.index("blue")}


def test_cells_without_an_object_say_nothing_of_one() -> None:
    cells = cells_of([sample_scene(seed) for seed in range(20)])
    empty = cells.things[:, 0] != OBJECT
    for attribute in cells.things[:, 1:].unbind(1):
        assert (attribute[empty] == NOTHING).all()
        assert (attribute[~empty] != NOTHING).all()


def test_sky_is_above_and_floor_below() -> None:
    kinds = cells_of([scene_of(thing("cone", "green", 0.0, 6.5))]).things[0, 0]
    assert (kinds[0] == KINDS.index("sky")).all()
    assert kinds[7, 0] == KINDS.index("floor")
    picture = render([scene_of(thing("cone", "green", 0.0, 6.5))], 256)[0]
    row = int((kinds[:, 0] == KINDS.index("floor")).nonzero()[0])
    above, below = picture[:, (row - 1) * 32 + 8, 4], picture[:, row * 32 + 24, 4]
    assert above[2] > above[0]  # blue over sand
    assert below[0] > below[2]


def test_scenes_are_cast_alone_and_together_alike() -> None:
    """Batches of scenes with as many objects each, put back in their order."""
    scenes = [sample_scene(seed) for seed in range(30)]
    together = cells_of(scenes)
    for row, scene in enumerate(scenes):
        alone = cells_of([scene])
        assert torch.equal(together.things[row], alone.things[0])
        assert torch.equal(together.places[row], alone.places[0])


def logits_of(cells: Cells, sure: float) -> dict[str, Tensor]:
    """Logits of a head that knows every answer."""
    head = AlignmentHead(8)
    things, places = cells.things.flatten(2).long().clamp_min(0), cells.places.long()
    answers = dict(zip(head.sizes, things.unbind(1), strict=True))
    answers |= dict(zip(head.places, places.unbind(1), strict=True))
    sizes = head.sizes | head.places
    return {name: sure * nn.functional.one_hot(at, sizes[name]).float() for name, at in answers.items()}


def test_a_head_that_knows_every_answer_has_no_loss() -> None:
    cells = cells_of([sample_scene(seed) for seed in range(6)])
    known = logits_of(cells, 50.0)
    assert alignment_loss(known, cells).item() == pytest.approx(0.0, abs=1e-4)
    assert all(right == asked > 0 for right, asked in hits(known, cells).values())
    known["colour"] = known["colour"].roll(1, dims=-1)
    assert hits(known, cells)["colour"][0] == 0
    assert alignment_loss(known, cells).item() == pytest.approx(50 / 7, rel=1e-3)


def test_attributes_are_asked_only_where_an_object_is() -> None:
    cells = cells_of([sample_scene(3)])
    logits = {name: x.requires_grad_() for name, x in logits_of(cells, 1.0).items()}
    alignment_loss(logits, cells).backward()
    shown = (cells.things[:, 0] == OBJECT).flatten(1)
    for name in WORDS:
        assert logits[name].grad[shown].any(), name
        assert not logits[name].grad[~shown].any(), name
    bare = replace(
        cells, things=torch.where(cells.things[:, :1] == OBJECT, 1, cells.things[:, :1]).repeat(1, 5, 1, 1)
    )
    bare.things[:, 1:] = NOTHING
    assert alignment_loss(logits, bare).isfinite()


def test_the_head_reads_a_block_and_changes_nothing() -> None:
    torch.manual_seed(0)
    joint = fresh_networks(30)
    for block in joint.transformer.blocks:
        torch.nn.init.normal_(block.cross.out.weight, std=0.05)
    ids = torch.randint(30, (2, TOKENS))
    captions = Captions(ids, ids >= 0, torch.tensor([1, 2]), torch.tensor([0, 3]), torch.arange(4))
    inputs = torch.randn(2, 32, 8, 8), torch.tensor([100.0, 900.0]), captions
    before = joint(*inputs)
    aligned = Aligned(joint, block=2)
    velocity, misplaced, logits = aligned(*inputs)
    assert torch.equal(velocity, before[0])
    assert torch.equal(misplaced, before[1])
    assert logits["colour"].shape == (2, 64, len(COLOURS))
    alignment_loss(logits, cells_of([sample_scene(1), sample_scene(2)])).backward()
    moved = [any(p.grad is not None for p in block.parameters()) for block in joint.transformer.blocks]
    assert moved == [True] * 3 + [False] * 7
    assert any(p.grad is not None for p in joint.text.parameters())
