"""How well Toybox keeps to a control: outlines and depth of drawn pictures, and whether they still show the prompt.

Scenes are held out: their combinations of words are in no training picture. Each is drawn from one of its captions,
without a control, from its outlines, from its depth and from both, with the same seed.

    edges    F1 of outlines within 2 pixels, of the picture against the control
    depth    correlation of what stands above the floor, read from the picture by a small network, with the true one
    prompt   share of pictures in which the judge finds all that the caption says
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor, nn

from sanakit.data.annotators import Annotator
from sanakit.data.image import to_image
from sanakit.evaluation.control import correlation, edge_f1
from sanakit.evaluation.toybox import to_tensor
from sanakit.pipeline import ImageRequest, Model
from sanakit.pipeline.control import Control, ControlFile
from sanakit.pipeline.inputs import InputImage
from sanakit.toybox import Scene, caption, parse, render, sample_scene
from sanakit.toybox.depth import NEAREST, depth, depth_levels
from sanakit.toybox.judging import judge, read
from sanakit.toybox.judging.network import stack
from sanakit.toybox.judging.shipped import load_judge

SIZE = 256
SIDE = 64
"""Pixels at which depth is read."""
READER_STEPS = 500
BATCH = 32


class DepthReader(nn.Module):
    """Pictures [B, 3, 64, 64] in 0..1 -> how much nearer than the bare floor each place is, [B, 64, 64]."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.fine = _normed(nn.Conv2d(3, width, 5, padding=2))
        self.deep = nn.Sequential(
            _normed(nn.Conv2d(width, 2 * width, 4, stride=4)),
            _normed(nn.Conv2d(2 * width, 2 * width, 5, padding=2)),
            _normed(nn.Conv2d(2 * width, 2 * width, 5, padding=2)),
        )
        self.last = nn.Conv2d(3 * width, 16, 3, padding=1)
        self.out = nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        """See the class."""
        fine = self.fine(pictures)
        coarse = F.interpolate(self.deep(fine), scale_factor=4, mode="bilinear")
        out: Tensor = self.out(F.gelu(self.last(torch.cat([fine, coarse], dim=1))))
        return out[:, 0]


def _normed(layer: nn.Conv2d) -> nn.Sequential:
    """A convolution with a norm, without which the reader learns to say that nothing stands anywhere."""
    return nn.Sequential(layer, nn.GroupNorm(4, layer.out_channels), nn.GELU())


def above_floor(scene: Scene, size: int = SIDE) -> Tensor:
    """[size, size]: the disparity of a scene beyond that of its floor and sky alone, where an object stands."""
    return NEAREST / depth(scene, size) - NEAREST / depth(replace(scene, objects=()), size)


def train_reader(pictures: Path, count: int, steps: int = READER_STEPS, batch: int = BATCH) -> DepthReader:
    """Learn to read depth from the pictures of `toybox_control`, whose scenes have the numbers of their names."""
    torch.manual_seed(0)
    levels = torch.stack([_small(Image.open(pictures / f"{number:06d}.png")) for number in range(count)])
    wanted = torch.stack([above_floor(sample_scene(number)) for number in range(count)])
    reader = DepthReader()
    optimizer = torch.optim.AdamW(reader.parameters())
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for step in range(steps):
        rows = torch.randint(count, (batch,), generator=torch.Generator().manual_seed(step))
        loss = F.mse_loss(reader(levels[rows]), wanted[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate.step()
    return reader.eval()


def _small(picture: Image.Image) -> Tensor:
    """[3, 64, 64] in 0..1."""
    return to_tensor(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)).float() / 255


@dataclass(frozen=True, kw_only=True)
class Case:
    """A scene with its caption and its control pictures."""

    scene: Scene
    prompt: str
    picture: Image.Image
    controls: Mapping[str, Image.Image]


def cases(count: int) -> list[Case]:
    """Held-out scenes 0 to count - 1, rendered."""
    annotate = Annotator(name="canny").function()
    found = []
    for number in range(count):
        scene = sample_scene(number, "held_out")
        picture = to_image((render([scene], SIZE)[0] * 255).round().to(torch.uint8))
        depths = Image.fromarray(depth_levels(scene, SIZE).numpy()).convert("RGB")
        found.append(
            Case(
                scene=scene, prompt=caption(scene, random.Random(number)), picture=picture,
                controls={"canny": annotate(picture), "depth": depths},
            )
        )  # fmt: skip
    return found


def score(
    pictures: Sequence[Image.Image], found: Sequence[Case], reader: DepthReader | None
) -> dict[str, float]:
    """The figures of pictures, one for each case, and the mean probability of the words of the prompts.

    reader: of depth; None leaves that figure out.
    """
    annotate, network = Annotator(name="canny").function(), load_judge().network
    edges, depths, right, words = [], [], [], []
    for picture, case in zip(pictures, found, strict=True):
        edges.append(edge_f1(_outline(annotate(picture)), _outline(case.controls["canny"])))
        if reader is not None:
            depths.append(_depth_correlation(picture, case, reader))
        verdict = judge(parse(case.prompt), read(network, stack([to_tensor(picture)]))[0][0])
        right.append(float(verdict.correct))
        words.append(verdict.score)
    figures = {"edges": edges, "depth": depths, "prompt": right, "score": words}
    return {name: round(fmean(values), 4) for name, values in figures.items() if values}


@torch.no_grad()
def _depth_correlation(picture: Image.Image, case: Case, reader: DepthReader) -> float:
    seen = reader(_small(picture)[None])[0]
    return correlation(seen.numpy(), above_floor(case.scene).numpy())


def _outline(control: Image.Image) -> np.ndarray:
    return np.asarray(control.convert("L")) > 127


def draw_with(
    model: Model, nets: Mapping[str, Path], steps: int, scale: float = 1.0
) -> Callable[[Case, int], Image.Image]:
    """Draw a case from some of its control pictures. nets: kind -> folder of its ControlNet; {} for none."""

    def draw(case: Case, number: int) -> Image.Image:
        controls = tuple(
            Control(network=ControlFile.take(folder), picture=InputImage.of(case.controls[kind]), scale=scale)
            for kind, folder in nets.items()
        )
        request = ImageRequest(prompt=case.prompt, seed=number, steps=steps, controls=controls)
        return model.images(request)[0]

    return draw
