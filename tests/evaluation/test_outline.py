"""`evaluation.outline`: circles, ellipses of known distance from a circle, and what lies beside an outline."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sanakit.evaluation.outline import expected_radius, out_of_round
from sanakit.toybox import render
from sanakit.toybox.grammar import Scene, SceneObject
from sanakit.toybox.judging import Found
from sanakit.toybox.judging.targets import MIDDLE, middle_of

SIDE = 256
SPHERE = Found(
    shape="sphere", colour="red", material="rubber", size="large", u=0.5, v=0.6, depth=0.0, presence=1.0, sure={}
)  # fmt: skip


def ellipse(stretch: float, u: float = 0.5, v: float = 0.6) -> Tensor:
    """A white ellipse whose half axes are the expected radius times 1 + stretch and 1 - stretch."""
    radius = expected_radius(SPHERE) * SIDE
    y, x = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    away = ((x - u * SIDE) / (1 + stretch)).square() + ((y - v * SIDE) / (1 - stretch)).square()
    return ((radius - away.sqrt()).clamp(-0.5, 0.5) + 0.5).expand(3, -1, -1)


def test_a_circle_is_round_also_beside_the_middle_that_was_read() -> None:
    assert out_of_round(ellipse(0.0), SPHERE) < 0.006
    assert out_of_round(ellipse(0.0, u=0.515, v=0.59), SPHERE) < 0.006


@pytest.mark.parametrize("stretch", [0.05, 0.1, 0.15])
def test_an_ellipse_is_off_by_its_stretch(stretch: float) -> None:
    """r = 1 + stretch cos 2a to first order, whose median distance from 1 is stretch / sqrt 2."""
    assert out_of_round(ellipse(stretch), SPHERE) == pytest.approx(stretch / 2**0.5, rel=0.15, abs=0.004)


def test_other_edges_on_a_few_rays_do_not_count() -> None:
    image = ellipse(0.0).clone()
    image[:, 150:156, :] = 1 - image[:, 150:156, :]
    assert out_of_round(image, SPHERE) < 0.01


@pytest.mark.parametrize("material", ["rubber", "metal", "striped"])
def test_rendered_spheres_are_round(material: str) -> None:
    item = SceneObject(shape="sphere", colour="blue", material=material, size="large", x=0.3, z=7.0, yaw=0.4)
    scene = Scene(objects=(item,), floor="grass", light="noon")
    u, v = middle_of(scene, item)
    read = Found(
        shape="sphere", colour="blue", material=material, size="large", u=u, v=v, depth=7.0 - MIDDLE, presence=1.0,
        sure={},
    )  # fmt: skip
    assert out_of_round(render([scene], SIDE)[0], read) < 0.03
