"""Can a model learn words that its text encoder has never seen? Three runs with Toybox's encoders on other things.

    python -m recipes.words runs/words --steps 800

    frozen      the text encoder stays as it is and reads the words letter by letter
    trained     it is trained with the transformer (text.train)
    vocabulary  the same, and each word gets a token of its own first (text.vocabulary=captions)

Each model then draws every caption; told is the share of captions whose picture is nearer to its own training picture
than to that of any other caption (chance: 1 in 60), by the mean squared difference of pixels.
"""

from __future__ import annotations

import argparse
import colorsys
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from recipes.settings import resumable
from sanakit.data.caption_rule import CaptionRule
from sanakit.pipeline import ImageRequest, load
from sanakit.training import (
    DataConfig,
    LRScheduleConfig,
    ModelConfig,
    OptimizerConfig,
    RunPhase,
    TextTraining,
    TrainConfig,
)
from sanakit.training.session import Session

SIDE = 64  # pixels: four positions of the latent, enough for an icon
_DRAWN = 128  # and those it is drawn with
SMALL = {"width": 192, "depth": 4, "heads": 6, "cross_heads": 6}
WORDS = (
    "pizza", "fire engine", "grinning face", "banana", "umbrella", "guitar", "ghost", "volcano", "bicycle", "owl",
    "strawberry", "rocket", "snowman", "violin", "hamburger", "octopus", "lighthouse", "candle", "penguin", "trophy",
    "cactus", "robot", "teapot", "butterfly", "anchor", "mushroom", "rainbow", "helicopter", "pretzel", "turtle",
    "crown", "dragon", "envelope", "feather", "giraffe", "hammer", "igloo", "jellyfish", "kite", "lemon",
    "magnet", "necklace", "onion", "parrot", "quilt", "radio", "scissors", "tractor", "unicorn", "violet",
    "walnut", "xylophone", "yacht", "zebra", "acorn", "beaver", "compass", "dolphin", "elephant", "flamingo",
)  # fmt: skip
VARIANTS = {
    "frozen": TextTraining(),
    "trained": TextTraining(train=True),
    "vocabulary": TextTraining(train=True, vocabulary="captions"),
}


def draw_icon(number: int) -> Image.Image:
    """An icon that differs from the others in shape, place and colours."""
    chance = random.Random(number)
    back, front, dot = (
        tuple(round(255 * part) for part in colorsys.hsv_to_rgb(chance.random(), saturation, value))
        for saturation, value in ((0.3, 0.95), (0.9, 0.7), (0.8, 0.3))
    )
    icon = Image.new("RGB", (_DRAWN, _DRAWN), back)
    pen = ImageDraw.Draw(icon)
    sides = chance.randint(3, 7)
    centre = (chance.randint(48, 80), chance.randint(48, 80))
    pen.regular_polygon((*centre, chance.randint(30, 50)), sides, rotation=chance.randint(0, 90), fill=front)
    x, y = chance.randint(20, 108), chance.randint(20, 108)
    pen.ellipse((x - 14, y - 14, x + 14, y + 14), fill=dot)
    return icon.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def write_set(folder: Path) -> Path:
    """Every word's icon with the word as its caption."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, word in enumerate(WORDS):
        draw_icon(number).save(folder / f"{number:02}.png")
        (folder / f"{number:02}.txt").write_text(word, encoding="utf-8")
    return folder


def run_config(folder: Path, variant: str, steps: int) -> TrainConfig:
    """The run of a variant; they differ in the text encoder alone."""
    return TrainConfig(
        folder=folder / variant, batch=20, clip=1.0, ema=0.99, report=100, text=VARIANTS[variant],
        model=ModelConfig(start="scratch", changes=SMALL),
        phases=(RunPhase(steps=steps, size=SIDE),), schedule=LRScheduleConfig(warmup=20, cooldown=0.3),
        optimizer=OptimizerConfig(lr=1e-3),
        data=DataConfig(
            path=write_set(folder / "set"), cache=folder / "cache", square=True, captions=CaptionRule(dropout=0.05)
        ),
    )  # fmt: skip


def drawn(model: Path) -> Iterator[np.ndarray]:
    """A picture for every word."""
    drawer = load(model, fast="off")
    for word in WORDS:
        request = ImageRequest(prompt=word, width=SIDE, height=SIDE, steps=10, guidance=2.0)
        yield np.asarray(drawer.images(request)[0], dtype=np.float32)


def share_right(model: Path) -> float:
    """The share of words whose picture is nearest to their own icon."""
    icons = np.stack([np.asarray(draw_icon(number), dtype=np.float32) for number in range(len(WORDS))])
    nearest = [int(((icons - picture) ** 2).mean(axis=(1, 2, 3)).argmin()) for picture in drawn(model)]
    return float(np.mean([number == found for number, found in enumerate(nearest)]))


@resumable
def main() -> None:
    """Train the variants, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    given = parser.parse_args()
    for variant in given.variants:
        session = Session(run_config(given.folder, variant, given.steps), device="cpu")
        for event in session.events():
            print(event, flush=True)
        share = share_right(given.folder / variant / "model")
        print(f"{variant}: {share:.0%} of {len(WORDS)} words draw their own icon", flush=True)


if __name__ == "__main__":
    main()
