"""A run of `recipes/toybox_gpu.py`: its folder, how long its stages take, and the files that they hand on."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from recipes.gpu_scenes import CAPTIONS, SceneTensors, read_scenes, write_scenes
from recipes.toybox_model import DEVICE
from recipes.toybox_shards import keep

ON_GPU = DEVICE.type == "cuda"
FOLDER = Path("runs/toybox-gpu")
SCENES = 150_000
PICTURES = 60_000
"""Scenes that the autoencoder learns from."""
LATENT = (32, 8, 8)
"""Shape of a scene's latent."""
HELD = 1_000
"""The last scenes of all, which no stage learns from."""


def say(text: str) -> None:
    """Print at once: the output of a machine that is there for minutes is read as it comes."""
    print(text, flush=True)


def default_generator() -> torch.Generator:
    """Torch's generator of the device, from which a recorded step may draw."""
    return torch.cuda.default_generators[DEVICE.index or 0] if ON_GPU else torch.default_generator


@dataclass(frozen=True, kw_only=True)
class GpuRun:
    """What the stages of a run share.

    Attributes:
        folder: of the run.
        seconds: of a stage that trains, compilation and reading not counted.
        scenes, pictures, held: see `SCENES`, `PICTURES` and `HELD`.
        batch, lr: of a stage that trains; None for its own.
        share: of the change of the cross-attentions that ships. Where all of it draws pairs that training lacks, such
            as sand at noon, as pairs that it knows, 0.7 brings them back (docs/log.md).
        wait: a stage compiles first and then waits for the files of the one before it, which another process makes.
    """

    folder: Path = FOLDER
    seconds: float = 120.0
    scenes: int = SCENES
    pictures: int = PICTURES
    held: int = HELD
    batch: int | None = None
    lr: float | None = None
    share: float = 1.0
    wait: bool = False

    def ready(self, name: str) -> Path:
        """The path of a file of the run, once it is there.

        Raises SystemExit if it is missing, and not to be waited for.
        """
        path = self.folder / name
        while not path.exists():
            if not self.wait:
                raise SystemExit(f"{path} is not there: run the stage before this one first")
            time.sleep(0.2)
        return path

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of a file of the run, on the device."""
        found = torch.load(self.ready(name), weights_only=True)
        return {key: value.to(DEVICE) for key, value in found.items()}

    def open_scenes(self, name: str = "scenes.pt") -> SceneTensors:
        """The scenes that `read_captions` wrote, or with another name `read_numbers`."""
        return SceneTensors(**self.tensors(name))

    def open_latents(self) -> tuple[Tensor, float]:
        """All latents as the transformer sees them, [n, C, h, w] bf16, and the factor that scaled them."""
        found = self.tensors("latents.pt")
        return found["latents"] * found["factor"].to(torch.bfloat16), float(found["factor"])

    def later_latents(self) -> tuple[Tensor, float] | None:
        """Zeros in the shape of all latents, to be filled in later, if the run waits for them; else None."""
        if not self.wait or (self.folder / "latents.pt").exists():
            return None
        return torch.zeros(self.scenes, *LATENT, device=DEVICE, dtype=torch.bfloat16), 1.0

    def rows(self, count: int, of: int) -> Tensor:
        """Draw the numbers of scenes to learn from, of so many of which the last are held out: [count]."""
        return torch.randint(of - self.held, (count,), device=DEVICE)


def sample(run: GpuRun) -> None:
    """Draw the scenes' numbers, unless they are there."""
    path = run.folder / "scenes.jsonl.gz"
    if not path.exists():
        write_scenes(path, run.scenes, os.cpu_count() or 1)


def read_numbers(run: GpuRun) -> None:
    """Keep what the renderer reads of the scenes that the autoencoder learns from."""
    found = read_scenes(run.ready("scenes.jsonl.gz"), run.pictures, os.cpu_count() or 1, captions=0)
    keep(run.folder / "numbers.pt", vars(found))


def read_captions(run: GpuRun) -> None:
    """Draw the captions of all scenes and keep their tokens."""
    found = read_scenes(run.ready("scenes.jsonl.gz"), run.scenes, os.cpu_count() or 1)
    keep(run.folder / "scenes.pt", vars(found))
    say(f"{len(found)} scenes, {CAPTIONS} captions each")
