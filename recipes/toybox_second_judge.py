"""A second judge of the Toybox: `python -m recipes.toybox_second_judge`.

It has the shipped judge's network and nothing else of it: another seed, other scenes, another order. Of two judges one
can choose among candidates and the other say what the choice is worth (recipes/best_of.py), so that nothing is praised
by the judge that picked it. Scenes, run and weights lie in runs/second-judge; the same command goes on.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch

from recipes.settings import resumable, settings, shortened
from recipes.toybox import trained_autoencoder
from recipes.toybox_judge import accuracy, through_autoencoder, train_judge, trained, write_judge
from recipes.toybox_shards import SIZE, SceneShards, render_dataset
from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.toybox.grammar import Split
from sanakit.toybox.judging.shipped import STEM
from sanakit.training import TrainConfig

RUNS = Path("runs/second-judge")
JUDGE = RUNS / "judge"
"""The folder that `load_judge` reads."""
SPLITS: dict[str, tuple[Split, int]] = {"train": ("train", 21), "unseen": ("held_out", 22)}
"""Name of a set -> its split and the seed of its scenes, none of which the shipped judge has seen."""
HELD_SEED = 23
BATCH = 16
CONFIG = replace(
    settings(
        RUNS / "run", 2_000, size=SIZE, batch=BATCH, lr=1.5e-3, weight_decay=0.02, warmup=100, cooldown=0.5, ema=0.99,
        minutes=2, report=50,
    ),
    seed=7,
)  # fmt: skip


def render(scenes: int, held: int, workers: int) -> None:
    """Render the scenes to learn from, and those to be measured on."""
    for name, (split, seed) in SPLITS.items():
        render_dataset(RUNS / name, scenes, SIZE, split, seed=seed, workers=workers)
    render_dataset(RUNS / "held", held, SIZE, "held_out", seed=HELD_SEED, workers=workers)


def decoded(name: str, count: int) -> torch.Tensor:
    """The first pictures of a set through the autoencoder, from a file if they are there."""
    path = RUNS / f"decoded-{name}.pt"
    if not path.exists():
        pictures = through_autoencoder(SceneShards(RUNS / name), count, trained_autoencoder())
        atomic_write(path, lambda draft: torch.save(pictures, draft))
    found: torch.Tensor = torch.load(path, weights_only=True, mmap=True)
    return found


def measure(config: TrainConfig, through: int) -> None:
    """Write the judge, and how often it is right about held-out scenes; `through` of them through the autoencoder."""
    model, held = trained(config), SceneShards(RUNS / "held")
    write_judge(model, held, ensure_writable_folder(JUDGE))
    told = {
        "as rendered": accuracy(model, held, lambda pixels: pixels),
        "through the autoencoder": accuracy(model, held, trained_autoencoder(), through),
    }
    atomic_write(JUDGE / f"{STEM}.json", (json.dumps(told, indent=1) + "\n").encode())


@resumable
def main() -> None:
    """Render, train, and measure what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=6000, help="to learn from, of either split")
    parser.add_argument("--decoded", type=int, default=1000, help="of these, through the autoencoder as well")
    parser.add_argument("--held", type=int, default=500, help="scenes to be measured on")
    parser.add_argument(
        "--held-decoded", type=int, default=100, help="of these, through the autoencoder as well"
    )
    parser.add_argument("--steps", type=int, default=CONFIG.steps)
    parser.add_argument("--workers", type=int, default=1, help="processes that render")
    given = parser.parse_args()
    render(given.scenes, given.held, given.workers)
    pictures = [decoded(name, given.decoded) for name in SPLITS]
    config = shortened(CONFIG, given.steps)
    train_judge(config, [SceneShards(RUNS / name) for name in SPLITS], pictures, order=11, compiled=False)
    measure(config, given.held_decoded)


if __name__ == "__main__":
    main()
