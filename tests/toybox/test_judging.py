"""The judge without its weights: targets, readings and verdicts agree with the scenes that they are made from."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch import nn

from sanakit.toybox import GroupSpec, Scene, SceneSpec, caption, full_spec, is_held_out, parse, sample_scene
from sanakit.toybox.grammar import NEXT_TO
from sanakit.toybox.judging import Judge, Maps, Reading, judge, read, targets_of
from sanakit.toybox.judging.network import PLACE, WORDS
from sanakit.toybox.judging.reading import accuracies
from sanakit.toybox.judging.targets import middle_of
from sanakit.toybox.trials import CATEGORIES, phrasings, trials

SCENES = [sample_scene(seed) for seed in range(40)]


class Oracle(nn.Module):
    """Answers what the targets say, surely."""

    def __init__(self, scenes: list[Scene]) -> None:
        super().__init__()
        self.targets = targets_of(scenes)

    def forward(self, pictures: torch.Tensor) -> Maps:
        wanted = self.targets
        return Maps(
            presence=torch.logit(wanted.heat, eps=1e-4),
            words={
                name: nn.functional.one_hot(wanted.words[name], len(known)).movedim(-1, 1) * 20.0
                for name, known in WORDS.items()
            },
            offset=wanted.offset,
            depth=wanted.depth,
            place={
                name: nn.functional.one_hot(wanted.place[name], len(known)) * 20.0
                for name, known in PLACE.items()
            },
            features=torch.zeros(len(pictures), 4),
        )


def readings_of(scenes: list[Scene]) -> list[Reading]:
    return read(Oracle(scenes), torch.zeros(len(scenes), 3, 8, 8))[0]  # type: ignore[arg-type]


READINGS = readings_of(SCENES)


def test_a_perfect_network_is_read_without_an_error() -> None:
    for name, (hits, n) in accuracies(SCENES, READINGS).items():
        assert hits == n > 0, name
    for scene, reading in zip(SCENES, READINGS, strict=True):
        wanted = sorted(middle_of(scene, item) for item in scene.objects)
        found = sorted((item.u, item.v) for item in reading.objects)
        assert torch.allclose(torch.tensor(found), torch.tensor(wanted), atol=1e-5)


def test_a_mirrored_scene_has_mirrored_targets() -> None:
    straight, mirrored = (targets_of(SCENES, flipped=flipped) for flipped in (False, True))
    for row, scene in enumerate(SCENES):
        for cell in mirrored.peak[row].nonzero().tolist():
            u = (cell[1] + float(mirrored.offset[row, 0, cell[0], cell[1]])) / 16
            assert min(abs(1 - u - middle_of(scene, item)[0]) for item in scene.objects) < 1e-5
    assert torch.equal(mirrored.peak.sum((1, 2)), straight.peak.sum((1, 2)))


def test_every_caption_of_a_scene_is_true_of_it() -> None:
    for seed, (scene, reading) in enumerate(zip(SCENES, READINGS, strict=True)):
        for spec in (full_spec(scene), parse(caption(scene, random.Random(seed)))):
            verdict = judge(spec, reading)
            assert verdict.correct, (spec, verdict.faults)
            assert verdict.score > 0.99


def related_scene() -> tuple[Scene, SceneSpec]:
    return next((s, full_spec(s)) for s in SCENES if full_spec(s).relation is not None)


@pytest.mark.parametrize("change", ["relation", "colour", "floor", "light", "count", "swap"])
def test_what_is_not_so_is_told(change: str) -> None:
    scene, spec = related_scene()
    first, second = spec.groups
    other = next(c for c in ("red", "green", "blue") if c not in (first.colour, second.colour))
    wrong = {
        "relation": replace(spec, groups=(second, first)),
        "colour": replace(spec, groups=(replace(first, colour=other), second)),
        "floor": replace(spec, floor="sand" if spec.floor != "sand" else "snow"),
        "light": replace(spec, light="noon" if spec.light != "noon" else "night"),
        "count": replace(spec, groups=(replace(first, count=2), second), relation=None),
        "swap": replace(
            spec,
            relation=None,
            groups=(replace(first, colour=second.colour), replace(second, colour=first.colour)),
        ),
    }[change]
    if change == "swap" and first.colour == second.colour:
        pytest.fail("choose another scene: both objects have one colour")
    verdict = judge(wrong, readings_of([scene])[0])
    assert not verdict.correct
    assert verdict.faults
    assert verdict.score < (1.0 if change in ("relation", "count", "swap") else 0.99) + 1e-6


def test_counts_are_exact_and_others_do_no_harm() -> None:
    scene = next(
        s for s in SCENES if len(s.objects) == 3 and len({(o.shape, o.colour) for o in s.objects}) == 1
    )
    item, reading = scene.objects[0], readings_of([scene])[0]
    for count, right in ((1, True), (2, False), (3, True), (4, False)):
        group = GroupSpec(shape=item.shape, colour=item.colour, count=count)
        assert judge(SceneSpec(groups=(group,)), reading).correct is right, count


def test_an_empty_picture_has_a_fault_for_each_thing() -> None:
    scene, spec = related_scene()
    empty = replace(readings_of([scene])[0], objects=())
    verdict = judge(spec, empty)
    assert len(verdict.faults) == 3  # both objects, and their relation
    assert not verdict.correct


def test_trials_are_even_unseen_and_say_what_they_mean() -> None:
    found = trials(120, seed=3)
    assert [t.category for t in found[:6]] == list(CATEGORIES)
    assert {c: sum(t.category == c for t in found) for c in CATEGORIES} == dict.fromkeys(CATEGORIES, 20)
    for trial in found:
        assert is_held_out(replace(trial.spec, floor=None, light=None))
        assert parse(trial.prompt) == trial.spec
    assert found == trials(240, seed=3)[:120]
    assert {t.prompt for t in found} != {t.prompt for t in trials(120, seed=4)}


def test_phrasings_are_even_held_out_and_say_what_they_mean() -> None:
    found = phrasings(120, seed=3)
    assert [t.category for t in found[:6]] == list(CATEGORIES)
    for trial in found:
        assert trial.unseen == "phrasing" and not is_held_out(trial.spec)
        assert parse(trial.prompt) == trial.spec
    assert NEXT_TO in {t.spec.relation for t in found}
    assert len({t.prompt for t in found}) == 120
    assert found == phrasings(240, seed=3)[:120]


def test_the_network_is_small_and_gives_the_maps_it_promises() -> None:
    torch.manual_seed(0)
    network = Judge().eval()
    assert sum(p.numel() for p in network.parameters()) <= 3_000_000
    readings, features = read(network, torch.rand(2, 3, 256, 256))
    assert features.shape == (2, 112)
    for reading in readings:
        assert all(sum(shares.values()) == pytest.approx(1, abs=1e-4) for shares in reading.sure.values())
