"""How well a model edits, read by the judge that ships: `python -m recipes.toybox_edit [SHOW ...] [--count 40]`.

    inpaint   another object where one stood, by a mask: is it there, is everything else still read as before
    placed    the same with the new object's words as a region, the box of the mask
    words     one attribute of one thing changed by words alone (FlowEdit): it, and no other
    inversion the same by inversion
    strength  the same by the new words at a strength of 0.5, without the old ones
    regions   two objects, each in the box that was given its words
    alone     the same two by the prompt alone, which says which is left: what regions are compared with

Scenes are held-out renders that the judge reads right. Prints a line per show with 95 % intervals, writes it as JSON,
and a sheet of the first cases (source, mask, result) into runs/edit.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.data.image import to_image
from sanakit.evaluation import Share
from sanakit.evaluation.toybox import to_tensor
from sanakit.pipeline import ImageRequest, Model, load
from sanakit.pipeline.inputs import InputImage
from sanakit.pipeline.regions import Region
from sanakit.toybox import GroupSpec, Scene, SceneSpec, full_spec, phrase, render, sample_scene
from sanakit.toybox.captions import name_group
from sanakit.toybox.grammar import COLOURS, FLOORS, LIGHTS, MATERIALS, SHAPES, SceneObject
from sanakit.toybox.judging import Found, Reading, read
from sanakit.toybox.judging.network import SIZE, stack
from sanakit.toybox.judging.shipped import load_judge
from sanakit.toybox.judging.verdict import is_said
from sanakit.toybox.sampling import view
from sanakit.training.preview import save_sheet

RUNS = Path("runs/edit")
FIRST_SEED = 10_000_000  # of the scenes, far from those of training
MARGIN = 0.02  # of the side, around an object's outline
CELLS = 8  # latent positions along a side of 256 pixels
LEFT, RIGHT = (0.0, 0.3, 0.5, 0.7), (0.5, 0.3, 0.5, 0.7)  # boxes of the floor's halves, as fractions
ATTRIBUTES = {"colour": COLOURS, "material": MATERIALS, "shape": SHAPES, "floor": FLOORS}
_SHOWN = 8  # cases on a sheet
_Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One picture to draw: done says whether what was asked is seen, kept whether all else is as before."""

    request: ImageRequest
    done: Callable[[Reading], bool]
    kept: Callable[[Reading], bool]


def inpaint(number: int) -> Case:
    """One object of a scene replaced by another, under a mask that covers its outline and some room."""
    return _replaced(number)[0]


def placed(number: int) -> Case:
    """As `inpaint`, with the words of the new object as a region: they are read under the mask alone."""
    case, said, (left, top, right, bottom) = _replaced(number)
    region = Region(box=(left, top, right - left, bottom - top), prompt=said)
    return replace(case, request=case.request.replace(regions=(region,)))


def _replaced(number: int) -> tuple[Case, str, _Box]:
    """The case of `inpaint`, what its prompt says for the new object, and the box of the mask."""
    draw = random.Random(f"inpaint-{number}")
    scene, picture, before = _scene(number, lambda scene: bool(_apart(scene)))
    which = draw.choice(_apart(scene))
    old = scene.objects[which]
    shape, colour = (
        draw.choice([w for w in words if w != has])
        for words, has in ((SHAPES, old.shape), (COLOURS, old.colour))
    )
    new = replace(scene, objects=_with(scene, which, replace(old, shape=shape, colour=colour)))
    box = _grown(view(scene)[which].box)
    others = sorted(_words(o) for o in before.objects if not _inside(box, o))
    wanted = GroupSpec(shape=shape, colour=colour)
    request = ImageRequest(prompt=phrase(full_spec(new)), source=picture, mask=_mask(box), seed=number)  # type: ignore[arg-type]
    case = Case(
        request=request,
        done=lambda found: any(is_said(wanted, o) and _inside(box, o) for o in found.objects),
        kept=lambda found: (
            sorted(_words(o) for o in found.objects if not _inside(box, o)) == others
            and (found.floor, found.light) == (before.floor, before.light)
        ),
    )
    kind = _words(new.objects[which])
    (said,) = (g for g in full_spec(new).groups if (g.shape, g.colour, g.material, g.size) == kind)
    return case, name_group(said), box


def words(number: int) -> Case:
    """One attribute of one thing, or the floor, in a scene of one or two objects."""
    draw = random.Random(f"words-{number}")
    scene, picture, before = _scene(number, lambda scene: len(scene.objects) <= 2)
    name = list(ATTRIBUTES)[number % len(ATTRIBUTES)]
    owner: Any = scene if name == "floor" else scene.objects[0]
    word = draw.choice([w for w in ATTRIBUTES[name] if w != getattr(owner, name)])
    changed = replace(owner, **{name: word})
    new = changed if name == "floor" else replace(scene, objects=_with(scene, 0, changed))
    said = full_spec(scene)
    request = ImageRequest(
        prompt=phrase(replace(full_spec(new), relation=said.relation)),
        source=InputImage.of(picture), source_prompt=phrase(said), seed=number,
    )  # fmt: skip
    wanted = sorted(_words(o) for o in new.objects)
    return Case(
        request=request,
        done=lambda found: _has(found, name, word, wanted),
        kept=lambda found: _rest(found, name) == _rest(before, name) and found.light == before.light,
    )


def inversion(number: int) -> Case:
    """As `words`, by inversion."""
    case = words(number)
    return replace(case, request=case.request.replace(how="inversion"))


def strength(number: int) -> Case:
    """As `words`, by the new words alone, begun in the middle of the noise levels."""
    case = words(number)
    return replace(case, request=case.request.replace(source_prompt=None, strength=0.5))


def regions(number: int) -> Case:
    """Two objects by their boxes; the prompt says floor and light alone."""
    first, second, ground, _ = _two(number)
    boxes = (Region(box=LEFT, prompt=name_group(first)), Region(box=RIGHT, prompt=name_group(second)))
    return _placed(ImageRequest(prompt=ground, regions=boxes, seed=number), first, second)


def alone(number: int) -> Case:
    """The same two objects by the prompt alone."""
    first, second, _, whole = _two(number)
    return _placed(ImageRequest(prompt=whole, seed=number), first, second)


SHOWS: Mapping[str, Callable[[int], Case]] = {
    "inpaint": inpaint, "placed": placed, "words": words, "inversion": inversion, "strength": strength,
    "regions": regions, "alone": alone,
}  # fmt: skip


def measure(
    model: Model, show: str, numbers: range, folder: Path, changes: Mapping[str, Any]
) -> dict[str, object]:
    """Draw and judge cases; returns the shares and writes the sheet. changes: fields of every request."""
    tally, rows, count = {"done": 0, "kept": 0, "both": 0}, [], len(numbers)
    for drawn, number in enumerate(numbers):
        case = SHOWS[show](number)
        picture = model.images(case.request.replace(**changes))[0]
        found = _read(picture)
        done, kept = case.done(found), case.kept(found)
        for name, hit in (("done", done), ("kept", kept), ("both", done and kept)):
            tally[name] += hit
        if drawn < _SHOWN:
            rows.append([*_inputs(case.request), picture])
        print(f"{show} {drawn + 1}/{count}: {tally}", file=sys.stderr, flush=True)
    save_sheet(folder / f"{show}.png", _sheet(rows))
    return {name: Share(hits=hits, n=count).to_json() for name, hits in tally.items()}


def _scene(number: int, fits: Callable[[Scene], bool]) -> tuple[Scene, Image.Image, Reading]:
    """The first scene from a seed on that fits and that the judge reads right, its picture and the reading."""
    seed = FIRST_SEED + 1000 * number
    while True:
        scene = sample_scene(seed, "held_out")
        seed += 1
        if not fits(scene):
            continue
        picture = _rendered(scene)
        found = _read(picture)
        right = sorted(_words(o) for o in found.objects) == sorted(_words(o) for o in scene.objects)
        if right and (found.floor, found.light) == (scene.floor, scene.light):
            return scene, picture, found


def _two(number: int) -> tuple[GroupSpec, GroupSpec, str, str]:
    """Two things, where they are ("on grass at noon"), and a sentence of both."""
    draw = random.Random(f"regions-{number}")
    shapes, colours = draw.sample(SHAPES, 2), draw.sample(COLOURS, 2)
    first, second = (GroupSpec(shape=s, colour=c) for s, c in zip(shapes, colours, strict=True))
    place = {"floor": draw.choice(FLOORS), "light": draw.choice(LIGHTS)}
    ground = phrase(SceneSpec(groups=(GroupSpec(shape="cube"),), **place)).removeprefix("a cube ")
    return first, second, ground, phrase(SceneSpec(groups=(first, second), relation="left of", **place))


def _placed(request: ImageRequest, first: GroupSpec, second: GroupSpec) -> Case:
    """Both are asked for in their boxes; nothing else is to be kept but their number."""

    def done(found: Reading) -> bool:
        pairs = ((first, LEFT), (second, RIGHT))
        return all(
            any(
                is_said(group, o) and _inside((b[0], b[1], b[0] + b[2], b[1] + b[3]), o)
                for o in found.objects
            )
            for group, b in pairs
        )

    return Case(request=request, done=done, kept=lambda found: len(found.objects) == 2)


def _apart(scene: Scene) -> list[int]:
    """The objects whose grown outline touches no other object's outline."""
    boxes = [sight.box for sight in view(scene)]
    return [
        k for k, box in enumerate(boxes)
        if not any(_overlap(_grown(box), other) for j, other in enumerate(boxes) if j != k)
    ]  # fmt: skip


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _grown(box: _Box) -> _Box:
    """A box with some room, to whole latent positions: what is drawn there is then not cut."""
    left, top = (math.floor((side - MARGIN) * CELLS) / CELLS for side in box[:2])
    right, bottom = (math.ceil((side + MARGIN) * CELLS) / CELLS for side in box[2:])
    return max(0.0, left), max(0.0, top), min(1.0, right), min(1.0, bottom)


def _inside(box: _Box, item: Found) -> bool:
    return box[0] <= item.u <= box[2] and box[1] <= item.v <= box[3]


def _mask(box: _Box) -> Image.Image:
    mask = Image.new("L", (SIZE, SIZE), 0)
    ImageDraw.Draw(mask).rectangle([round(side * SIZE) for side in box], fill=255)
    return mask


def _with(scene: Scene, which: int, item: SceneObject) -> tuple[SceneObject, ...]:
    return tuple(item if k == which else other for k, other in enumerate(scene.objects))


def _words(item: SceneObject | Found) -> tuple[str, str, str, str]:
    return item.shape, item.colour, item.material, item.size


def _has(found: Reading, name: str, word: str, wanted: Sequence[tuple[str, ...]]) -> bool:
    """Whether the attribute is seen: the floor, or for objects that as many show the word as are to."""
    if name == "floor":
        return found.floor == word
    at = ("shape", "colour", "material", "size").index(name)
    seen = sum(bool(getattr(o, name) == word) for o in found.objects)
    return seen == sum(words[at] == word for words in wanted)


def _rest(found: Reading, name: str) -> tuple[object, ...]:
    """All that was read but for one attribute."""
    kinds = [kind for kind in ("shape", "colour", "material", "size") if kind != name]
    objects = sorted(tuple(getattr(o, kind) for kind in kinds) for o in found.objects)
    return (objects, None if name == "floor" else found.floor)


def _rendered(scene: Scene) -> Image.Image:
    return to_image((render([scene], SIZE)[0].clamp(0, 1) * 255).round().to(torch.uint8))


def _read(picture: Image.Image) -> Reading:
    return read(load_judge().network, stack([to_tensor(picture)]))[0][0]


def _inputs(request: ImageRequest) -> Iterator[Image.Image]:
    for file in (request.source, request.mask):
        if file is not None:
            yield file.image


def _sheet(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Cases one below the other."""
    sheet = Image.new("RGB", (SIZE * max(map(len, rows)), SIZE * len(rows)), "white")
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            sheet.paste(image.convert("RGB"), (SIZE * column, SIZE * row))
    return sheet


def change(pair: str) -> tuple[str, Any]:
    """FIELD=VALUE of a request, the value as JSON; a list is a tuple there."""
    name, _, text = pair.partition("=")
    value = json.loads(text)
    return name, tuple(value) if isinstance(value, list) else value


def main() -> None:
    """Measure the shows that are named, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shows", nargs="*", choices=[*SHOWS, []], help="which; all if none is named")
    parser.add_argument("--model", default="toybox")
    parser.add_argument("--count", type=int, default=40, help="cases of each show")
    parser.add_argument(
        "--first",
        type=int,
        default=0,
        help="number of the first; choose settings on other cases than you report",
    )
    parser.add_argument("--out", type=Path, default=RUNS)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="of every request, such as steps=10 or angles=[1.57,1.2]",
    )
    arguments = parser.parse_args()
    folder = ensure_writable_folder(arguments.out)
    model = load(arguments.model)
    changes = dict(change(pair) for pair in arguments.set)
    numbers = range(arguments.first, arguments.first + arguments.count)
    for show in arguments.shows or SHOWS:
        found = measure(model, show, numbers, folder, changes)
        atomic_write(folder / f"{show}.json", json.dumps(found).encode())
        print(show, json.dumps(found))


if __name__ == "__main__":
    main()
