"""Previews of a ControlNet under training: each control picture beside what is drawn from it and its prompt."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from sanakit.base.precision import Precision
from sanakit.pipeline import ImageRequest, Model
from sanakit.pipeline.control import Control, ControlFile
from sanakit.pipeline.inputs import InputImage
from sanakit.pipeline.origin import Origin
from sanakit.training.config import TrainConfig
from sanakit.training.preview import captioned_sheet, save_sheet
from sanakit.training.tasks.control_pictures import ControlPictures
from sanakit.training.trainer import Hook, Trainer
from sanakit.transformer import ControlConfig
from sanakit.weights import ModelSpec, save_control

_FORWARD = 3  # a training step is about three forward passes
_SHOWN = 2  # control pictures, if the config has no prompts
_DRAFT = ".preview-control"


def control_preview(
    config: TrainConfig, spec: ModelSpec, precision: Precision, shape: ControlConfig, controls: ControlPictures,
    rows: Sequence[int],
) -> Hook:  # fmt: skip
    """Draw to RUN/previews/step-N.png with the averaged weights, which every process gathers and the first one draws.

    spec: the base model. rows: pictures of the set whose controls are drawn from, with the prompts of the config in
    their order, or with their own captions.
    """
    wanted = config.preview
    chosen = rows[: len(wanted.prompts) or _SHOWN]
    prompts = wanted.prompts[: len(chosen)] or [controls.caption(row) for row in chosen]

    def draw(trainer: Trainer) -> Mapping[str, float]:
        weights = trainer.ema.gathered()
        if trainer.world.leads:
            phase, _ = config.phase_at(max(0, trainer.step - 1))  # of the last step
            with _written(config.folder / _DRAFT, shape, weights) as folder:
                cells = _cells(
                    config, spec, precision, folder, [controls.picture(row, phase) for row in chosen], prompts
                )
            pictures, texts = zip(*cells, strict=True)
            save_sheet(path(trainer), captioned_sheet(pictures, texts, columns=2), prompts)
        return {}

    def path(trainer: Trainer) -> Path:
        return config.folder / "previews" / f"step-{trainer.step:08d}.png"

    branches = 2 if wanted.guidance > 1 else 1
    return Hook(
        name="preview", every=wanted.every, run=draw, required=False, at_start=True, picture=path,
        expected=len(chosen) * wanted.steps * branches / (_FORWARD * config.batch),
    )  # fmt: skip


@contextmanager
def _written(folder: Path, shape: ControlConfig, weights: Mapping[str, Tensor]) -> Iterator[Path]:
    """Write the weights to a folder that lasts as long as the pictures are drawn."""
    try:
        save_control(folder, shape, weights, dtype=torch.float32)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _cells(
    config: TrainConfig,
    spec: ModelSpec,
    precision: Precision,
    folder: Path,
    pictures: Sequence[Image.Image],
    prompts: Sequence[str],
) -> list[tuple[Image.Image, str]]:
    """Control pictures, each followed by what is drawn, with the texts below them."""
    model = Model(spec, precision, origin=Origin(name=str(config.folder)), frugal=False, fast="off")
    wanted, network = config.preview, ControlFile.take(folder)
    cells = []
    for picture, prompt in zip(pictures, prompts, strict=True):
        request = ImageRequest(
            prompt=prompt, steps=wanted.steps, guidance=wanted.guidance, seed=wanted.seed, width=picture.width,
            height=picture.height, bins=False, controls=(Control(network=network, picture=InputImage.of(picture)),),
        )  # fmt: skip
        cells += [(picture, "control"), (model.images(request)[0], prompt)]
    return cells
