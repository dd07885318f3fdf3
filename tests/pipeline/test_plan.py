"""The plan of a request: final numbers, whatever was left open."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sanakit.base import RequestError
from sanakit.base.sizes import Size
from sanakit.flow.path import angle_from_time
from sanakit.pipeline import ImageRequest, make_plan
from sanakit.weights import read_model_spec
from tests.oracles.tiny import Folders, Recipe

REQUEST = ImageRequest(prompt="a red cube", seed=7, count=3)


def test_open_fields_are_filled_by_the_model(tiny: Folders) -> None:
    plan = make_plan(read_model_spec(tiny()), REQUEST)
    assert (plan.size, plan.steps, plan.solver.name) == (Size(1024, 1024), 20, "dpm2")
    assert (plan.guidance.scale, plan.uncond, plan.branches) == (4.5, True, 2)
    assert plan.latent_shape == (8, 32, 32)
    assert list(plan.seeds) == [7, 8, 9]
    sprint = make_plan(read_model_spec(tiny(Recipe(sprint=True))), REQUEST)
    assert (sprint.steps, sprint.solver.name, sprint.clock.scale) == (2, "scm", 1.0)
    assert (sprint.guidance.scale, sprint.guidance_input, sprint.branches) == (1.0, 4.5, 1)


def test_the_size_drawn_may_be_another_than_the_one_asked_for(tiny: Folders) -> None:
    spec = replace(read_model_spec(tiny()), bins=True)
    plan = make_plan(spec, REQUEST.replace(width=1056, height=992))
    assert plan.size == Size(1056, 992)
    assert plan.drawn != plan.size
    assert plan.latent_shape[1:] == (plan.drawn.height // 32, plan.drawn.width // 32)
    exact = make_plan(spec, REQUEST.replace(width=1056, height=992, bins=False))
    assert exact.drawn == exact.size


def test_equal_requests_have_equal_plans_and_notes_tell_what_has_no_effect(tiny: Folders) -> None:
    spec = read_model_spec(tiny())
    assert make_plan(spec, REQUEST) == make_plan(spec, REQUEST)
    request = REQUEST.replace(negative="fog", guidance=1.0, pag_blocks=(0,), solver="scm")
    words = ("negative prompt has no effect", "pag_blocks have no effect", "scm is the sampler of Sprint")
    notes = make_plan(spec, request).notes
    assert len(notes) == 3
    assert all(text in note for text, note in zip(words, notes, strict=True))


def test_absent_blocks_are_refused(tiny: Folders) -> None:
    with pytest.raises(RequestError, match="no block 9 to perturb: the transformer has blocks 0 to 1"):
        make_plan(read_model_spec(tiny()), REQUEST.replace(pag=1.0, pag_blocks=(9,)))


def test_angles_are_noise_levels_of_the_consistency_solver_alone(tiny: Folders) -> None:
    sprint, flow = read_model_spec(tiny(Recipe(sprint=True))), read_model_spec(tiny())
    plan = make_plan(sprint, REQUEST.replace(angles=(1.5708, 1.0, 0.5)))
    assert (plan.steps, plan.request.steps, plan.notes) == (3, 3, ())
    assert [angle_from_time(level) for level in plan.sigmas] == pytest.approx([1.5708, 1.0, 0.5, 0.0])
    assert "taken for pure noise" in make_plan(sprint, REQUEST.replace(angles=(1.4,))).notes[0]
    with pytest.raises(RequestError, match="for the solver scm, and this picture is drawn by dpm2"):
        make_plan(flow, REQUEST.replace(angles=(1.5708, 1.0)))
