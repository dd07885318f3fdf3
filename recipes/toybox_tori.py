"""A reader of tori for `recipes.toybox_lora`: the shipped judge, which knows none, with a probe on its features.

The judge finds solids and their colours, tori as well; the probe says by the features around one whether it is a torus.
It is least squares on renders, and says on others how well it reads.
"""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.autoencoder import DCAE
from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.evaluation import Share
from sanakit.toybox import Scene, SceneObject, render
from sanakit.toybox.grammar import COLOURS, FLOORS, LIGHTS, MATERIALS, SHAPES, SIZES, SceneSpec
from sanakit.toybox.judging import Judge, read
from sanakit.toybox.judging.network import CELLS
from sanakit.toybox.judging.reading import Found, Reading
from sanakit.toybox.judging.shipped import load_judge
from sanakit.weights import load_autoencoder, read_model_spec, resolve

NAME = "torus"
TAUGHT, KNOWN = 160, 120
"""Scenes that the probe learns from, and others that say how well it reads; half of each show a torus."""

_RIDGE = 30.0  # of its 1009 numbers, which have so few scenes to learn from
_CHANNELS = 112  # of the judge's features


def single(seed: int, shape: str) -> Scene:
    """A scene with one solid somewhere, of any colour, size and material."""
    draw = random.Random(f"single-{seed}")
    item = SceneObject(
        shape=shape, colour=draw.choice(COLOURS), material=draw.choice(MATERIALS), size=draw.choice(SIZES),
        x=draw.uniform(-1.2, 1.2), z=draw.uniform(6.0, 7.4), yaw=draw.uniform(0.1, 0.9),
    )  # fmt: skip
    return Scene(objects=(item,), floor=draw.choice(FLOORS), light=draw.choice(LIGHTS), seed=seed)


def train_probe(path: Path, taught: int = TAUGHT, known: int = KNOWN) -> dict[str, Share]:
    """Train the probe and write it; return how often it reads others right, and how often the judge their colours.

    Every second scene shows a torus; half of all went through the autoencoder, as drawn pictures do.
    """
    judge, rows, colours = load_judge().network, [], []
    for seed in range(taught + known):
        scene = single(seed, NAME if seed % 2 else SHAPES[seed // 2 % len(SHAPES)])
        picture = render([scene], 256, samples=1)
        around, reading = surroundings(judge, decoded(picture) if seed // 2 % 2 else picture)
        rows.append(
            around[0] if around else torch.zeros(9 * _CHANNELS)
        )  # the most certain object comes first
        colours.append(bool(around) and reading.objects[0].colour == scene.objects[0].colour)
        if seed % 20 == 19:
            print(f"scene {seed + 1}/{taught + known}", flush=True)
    x, y = torch.stack(rows), torch.arange(taught + known) % 2 > 0
    weight = ridge(x[:taught], y[:taught].float())
    ensure_writable_folder(path.parent)
    atomic_write(path, lambda draft: torch.save(weight, draft))
    right, tori, seen = (score(weight, x) > 0.5) == y, y[taught:], torch.tensor(colours)
    return {
        "probe on other tori": _share(right[taught:][tori]),
        "probe on other solids": _share(right[taught:][~tori]),
        "judge on colours of tori": _share(seen[taught:][tori]),
    }


def _share(hits: Tensor) -> Share:
    return Share(hits=int(hits.sum()), n=len(hits))


def ridge(x: Tensor, y: Tensor) -> Tensor:
    """Least squares with a penalty: features [n, C], truths [n] of 0 or 1 -> weights [C + 1], the last the constant."""
    mean = x.mean(0)
    kernel = (x - mean) @ (x - mean).T + _RIDGE * torch.eye(len(x))
    slope = (x - mean).T @ torch.linalg.solve(kernel, y - y.mean())
    return torch.cat([slope, (y.mean() - mean @ slope)[None]])


def score(weight: Tensor, x: Tensor) -> Tensor:
    """[C + 1], [n, C] -> [n], above a half for a torus."""
    return x @ weight[:-1] + weight[-1]


@torch.no_grad()
def surroundings(judge: Judge, picture: Tensor) -> tuple[list[Tensor], Reading]:
    """Features of 3 x 3 cells around each object that the judge reads in a picture [1, 3, 256, 256]; its reading."""
    reading = read(judge, picture)[0][0]
    maps = F.pad(judge.norm(judge.trunk(picture * 2 - 1)), (1, 1, 1, 1))[0]  # [C, 18, 18]

    def around(item: Found) -> Tensor:
        x, y = (min(max(int(place * CELLS), 0), CELLS - 1) for place in (item.u, item.v))
        return maps[:, y : y + 3, x : x + 3].flatten()

    return [around(item) for item in reading.objects], reading


@cache
def _autoencoder() -> DCAE:
    spec = read_model_spec(resolve("toybox"))
    with torch.device("meta"):
        model = DCAE(spec.autoencoder)
    load_autoencoder(model, spec.autoencoder, spec.autoencoder_folder, dtype=torch.float32)
    return model.eval()


@torch.no_grad()
def decoded(picture: Tensor) -> Tensor:
    """[1, 3, H, W] in 0..1 through the shipped autoencoder."""
    made: Tensor = (_autoencoder()(picture * 2 - 1).clamp(-1, 1) + 1) / 2
    return made


def shows_torus(judge: Judge, weight: Tensor, spec: SceneSpec, picture: Tensor) -> tuple[bool, bool]:
    """(it shows a torus, and one of the colour and in the place that were asked for) of a picture [1, 3, 256, 256].

    A torus is the only object: of a heap of half-made solids, which a model draws for a word that it does not know,
    the probe takes one for a torus in two pictures of three.
    """
    around, reading = surroundings(judge, picture)
    if len(reading.objects) != 1 or float(score(weight, around[0][None])) <= 0.5:
        return False, False
    asked = (spec.floor, spec.light, spec.groups[0].colour)
    return True, asked == (reading.floor, reading.light, reading.objects[0].colour)
