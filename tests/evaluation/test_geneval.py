"""GenEval's object checks: on renders, with a detector that knows what was rendered; and with a tiny real one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sanakit.base.errors import ConfigError, DataError, RequestError
from sanakit.base.precision import decide
from sanakit.batch.items import Item
from sanakit.data.labels.dense import ModelDetector
from sanakit.data.labels.labellers import Detection
from sanakit.evaluation.geneval import (
    COLOURS,
    Asked,
    check_names,
    check_picture,
    colours_by,
    faults,
    read_asked,
    relations,
    sure,
)
from sanakit.evaluation.suite_measures import MeasureNames, ObjectChecks, check_objects
from sanakit.evaluation.suites import read_suite
from sanakit.pipeline import ImageRequest
from sanakit.toybox import Scene
from sanakit.toybox.grammar import SHAPES, SceneObject
from sanakit.toybox.judging.targets import middle_of
from sanakit.toybox.palette import COLOUR_RGB
from tests.data.labels.renders import rendered
from tests.data.labels.tiny_models import write_clip


def thing(shape: str, colour: str, x: float, z: float = 7.0) -> SceneObject:
    return SceneObject(shape=shape, colour=colour, material="rubber", size="large", x=x, z=z)


SCENES = {
    "pair": Scene(objects=(thing("sphere", "red", -1.3), thing("cube", "blue", 1.3)), floor="snow", light="noon"),
    "three": Scene(objects=tuple(thing("sphere", "green", x) for x in (-1.8, 0.0, 1.8)), floor="snow", light="noon"),
}  # fmt: skip


class Knowing:
    """Boxes around the objects of the scenes that were rendered, found by their pictures; half a box to a side."""

    names = frozenset(SHAPES)

    def __init__(self, pictures: Sequence[Image.Image], scenes: Sequence[Scene], half: int = 20) -> None:
        self.known = dict(zip([one.tobytes() for one in pictures], scenes, strict=True))
        self.half = half

    def __call__(self, pictures: Sequence[Image.Image]) -> list[list[Detection]]:
        return [self.boxes(one) for one in pictures]

    def boxes(self, picture: Image.Image) -> list[Detection]:
        scene, found = self.known[picture.tobytes()], []
        for item in scene.objects:
            u, v = (part * picture.width for part in middle_of(scene, item))
            box = (u - self.half, v - self.half, u + self.half, v + self.half)
            found.append(Detection(name=item.shape, box=box, score=0.95))
        return found


def seen_colour(picture: Image.Image, name: str) -> str:
    """The colour of the palette nearest in direction to the middle of a picture."""
    middle = np.asarray(picture.convert("RGB"), dtype=float)
    middle = (middle[middle.shape[0] // 2, middle.shape[1] // 2] / 255) ** 2.2
    palette = {name: np.array(value) for name, value in COLOUR_RGB.items() if name in COLOURS}

    def cosine(name: str) -> float:
        return float(middle @ palette[name] / np.linalg.norm(middle) / np.linalg.norm(palette[name]))

    return max(palette, key=cosine)


def asked(*include: dict[str, Any], exclude: Sequence[dict[str, Any]] = ()) -> Asked:
    found = read_asked({"prompt": "a prompt", "include": list(include), "exclude": list(exclude)})
    assert found is not None
    return found


def group(name: str, count: int = 1, **more: Any) -> dict[str, Any]:
    return {"class": name, "count": count, **more}


@pytest.fixture(scope="module")
def pictures() -> dict[str, Image.Image]:
    return dict(zip(SCENES, rendered(list(SCENES.values())), strict=True))


@pytest.mark.parametrize(
    ("scene", "wanted", "fault"),
    [
        ("pair", asked(group("sphere"), group("cube")), None),
        ("pair", asked(group("sphere"), group("cone")), "0 of 1 cone"),
        ("pair", asked(group("sphere", color="red"), group("cube", color="blue")), None),
        ("pair", asked(group("sphere", color="blue"), group("cube", color="red")), "red instead of blue sphere"),
        ("pair", asked(group("sphere"), group("cube", position=["right of", 0])), None),
        ("pair", asked(group("sphere"), group("cube", position=["left of", 0])), "cube is not left of the other"),
        ("pair", asked(group("cone"), group("cube", position=["right of", 0])), "nothing that cube could be"),
        ("three", asked(group("sphere", 3), exclude=[group("sphere", 4)]), None),
        ("three", asked(group("sphere", 2), exclude=[group("sphere", 3)]), "3 of sphere, fewer than 3"),
        ("three", asked(group("sphere", 2)), None),
        ("three", asked(group("sphere", 4)), "3 of 4 sphere"),
    ],
)  # fmt: skip
def test_renders_are_right_for_what_they_show_alone(
    pictures: dict[str, Image.Image], scene: str, wanted: Asked, fault: str | None
) -> None:
    knowing = Knowing(list(pictures.values()), list(SCENES.values()))
    told = check_picture(pictures[scene], wanted, "", knowing, seen_colour)
    assert (not told) if fault is None else any(fault in one for one in told), told


def test_counting_takes_surer_things_than_the_rest() -> None:
    def found(score: float) -> list[Detection]:
        return [Detection(name="cup", box=(0, 0, 9, 9), score=score)]

    class Unsure:
        names = frozenset({"cup"})

        def __call__(self, pictures: Sequence[Image.Image]) -> list[list[Detection]]:
            return [found(0.5) for _ in pictures]

    blank = Image.new("RGB", (20, 20))
    assert check_picture(blank, asked(group("cup")), "single_object", Unsure(), seen_colour) == []
    assert check_picture(blank, asked(group("cup")), "counting", Unsure(), seen_colour) == ["0 of 1 cup"]
    many = sure(found(0.4) * 20 + found(0.6), 0.3)["cup"]
    assert len(many) == 16 and many[0].score == 0.6


def test_near_middles_stand_in_no_relation_and_diagonals_in_two() -> None:
    box = (100.0, 100.0, 140.0, 140.0)

    def moved(x: float, y: float) -> tuple[float, float, float, float]:
        return (box[0] + x, box[1] + y, box[2] + x, box[3] + y)

    assert relations(box, box) == relations(moved(7, 0), box) == set()
    assert relations(moved(-60, 0), box) == {"left of"} and relations(moved(0, 60), box) == {"below"}
    assert relations(moved(60, -60), box) == {"right of", "above"}
    assert relations(moved(60, -20), box) == {"right of"}


def test_classes_of_coco_have_other_names() -> None:
    mouse = Detection(name="mouse", box=(0, 0, 9, 9), score=0.9)
    assert faults(asked(group("computer mouse")), {"mouse": [mouse]}, lambda *_: "red") == []
    detector = Knowing([], [])
    with pytest.raises(DataError, match="knows no 'bench' and 1 more"):
        check_names([asked(group("bench"), group("tv"), group("cube"))], detector)


@pytest.mark.parametrize(
    "include",
    [
        [{"count": 1}],
        [group("cup", color="teal")],
        [group("cup"), group("fork", position=["near", 0])],
        [group("cup", position=["above", 0])],
        5,
    ],
)
def test_lines_that_are_not_as_genevals_are_refused(include: object) -> None:
    with pytest.raises(DataError, match="'a prompt'"):
        read_asked({"prompt": "a prompt", "include": include})


def test_colours_are_told_by_the_mean_of_three_texts() -> None:
    def scorer(pictures: Sequence[Image.Image], captions: Sequence[Sequence[str]]) -> list[list[float]]:
        marks = {"a photo of a pink cup": 5.0, "a photo of a blue cup": 3.0, "a photo of a blue object": 3.0}
        return [[marks.get(text, 0.0) for text in texts] for texts in captions]

    assert colours_by(scorer)(Image.new("RGB", (4, 4)), "cup") == "blue"


def geneval(folder: Path, **more: Any) -> Path:
    row = {"tag": "single_object", "include": [group("cube", **more)], "prompt": "a photo of a cube"}
    path = folder / "evaluation_metadata.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return path


def test_a_suites_pictures_are_checked_by_their_keys(
    tmp_path: Path, pictures: dict[str, Image.Image]
) -> None:
    suite = read_suite(geneval(tmp_path))
    for name, picture in pictures.items():
        picture.save(tmp_path / f"{name}.png")
    checks = ObjectChecks(suite, Knowing(list(pictures.values()), list(SCENES.values())), seen_colour)
    keys = {"pair": "00000-0", "three": "00000-1"}
    for name, key in keys.items():
        (tmp_path / f"{name}.png").rename(tmp_path / f"{key}.png")
    drawn = [Item(key=key, request=ImageRequest(prompt="a photo of a cube")) for key in keys.values()]
    assert list(checks.scores(drawn, tmp_path)) == [("00000-0", 100.0), ("00000-1", 0.0)]


def test_what_can_not_be_checked_is_told(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="add --colours NAME"):
        check_objects(read_suite(geneval(tmp_path, color="red")), MeasureNames(detector="x"))
    (tmp_path / "own.txt").write_text("a cube\n")
    with pytest.raises(DataError, match="does not say which objects"):
        check_objects(read_suite(tmp_path / "own.txt"), MeasureNames(detector="x"))
    with pytest.raises(RequestError, match="--colours goes with --detector"):
        MeasureNames(colours="x")


def write_detector(folder: Path) -> Path:
    """A YOLOS of four boxes, which knows three classes."""
    import transformers as t

    torch.manual_seed(0)
    config = t.YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=[32, 32],
        patch_size=16, num_detection_tokens=4, id2label={0: "sphere", 1: "cube", 2: "cone"},
    )  # fmt: skip
    model: Any = t.YolosForObjectDetection(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.rand_like(weight) * 0.2)
    model.save_pretrained(folder)
    t.YolosImageProcessor(size={"shortest_edge": 32, "longest_edge": 32}).save_pretrained(folder)
    return folder


def test_a_detector_of_transformers_finds_boxes_in_pixels(tmp_path: Path) -> None:
    detector = ModelDetector(write_detector(tmp_path / "yolos"), decide("cpu", "fp32"))
    assert detector.names == {"sphere", "cube", "cone"}
    small, large = (
        detector([Image.new("RGB", (64, 32), "red")])[0],
        detector([Image.new("RGB", (128, 64), "red")])[0],
    )
    assert len(small) == len(large) == 4 and {one.name for one in small} <= detector.names
    assert all(0 < one.score < 1 for one in small)
    # The processor shrinks both to the same picture, so boxes double with it.
    for one, other in zip(small, large, strict=True):
        assert np.allclose(np.array(other.box), 2 * np.array(one.box), atol=0.5)
    with pytest.raises(ConfigError, match="can't be loaded"):
        ModelDetector(write_clip(tmp_path / "clip"), decide("cpu", "fp32"))
