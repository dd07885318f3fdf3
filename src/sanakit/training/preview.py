"""Pictures of a run: the averaged weights draw the same prompts with the same seed, through the usual pipeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import nn

from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.base.precision import Precision
from sanakit.pipeline import ImageRequest, Model
from sanakit.pipeline.model import Origin
from sanakit.text import TextEncoder, build_gemma, load_tokenizer
from sanakit.training.config import TrainConfig
from sanakit.training.loop import Chore, Run
from sanakit.training.sheet import captioned_sheet
from sanakit.training.tasks.joint import text_weights, transformer_of, transformer_weights
from sanakit.training.tasks.transformer import phase_config
from sanakit.transformer import SanaTransformer
from sanakit.weights import ModelSpec, assign

PROMPTS = (
    "a large red metal sphere left of a small blue rubber cube on grass at sunset",
    "two yellow cones on sand",
)
_FORWARD = 3  # a training step is about three forward passes


def preview(config: TrainConfig, spec: ModelSpec, precision: Precision, model: nn.Module) -> Chore:
    """Draws `config.preview` to RUN/previews/step-N.png. Every process gathers the weights, the first one draws.

    The sheet of step 0 shows the weights that the run begins with.
    """

    def draw(run: Run) -> Mapping[str, float]:
        weights = run.ema.gathered()
        if run.world.leads:
            parts = transformer_weights(model, weights), text_weights(model, weights)
            pictures = draw_previews(config, as_trained(config, spec, model, run.step), precision, *parts)
            prompts = config.preview.prompts or PROMPTS
            save_sheet(path(run), captioned_sheet(pictures, prompts), prompts)
        return {}

    def path(run: Run) -> Path:
        return config.folder / "previews" / f"step-{run.step:08d}.png"

    wanted = config.preview
    passes = len(wanted.prompts or PROMPTS) * wanted.steps * (2 if wanted.guidance > 1 else 1)
    return Chore(
        name="preview", every=wanted.every, run=draw, needed=False, at_start=True, picture=path,
        expected=passes / (_FORWARD * config.batch),
    )  # fmt: skip


def as_trained(config: TrainConfig, spec: ModelSpec, model: nn.Module, step: int) -> ModelSpec:
    """The base model's description with the network as it was trained in the last of so many steps."""
    phase = config.phases[config.phase_at(max(0, step - 1))[0]]
    network = phase_config(transformer_of(model).config, phase, spec.autoencoder.ratio)
    return replace(spec, transformer=network, bins=False)


def draw_previews(
    config: TrainConfig,
    spec: ModelSpec,
    precision: Precision,
    weights: Mapping[str, torch.Tensor],
    text: Mapping[str, torch.Tensor] | None = None,
) -> list[Image.Image]:
    """One picture per prompt, at the size that the network is trained at. text: of a text encoder that is trained."""
    with torch.device("meta"):
        network = SanaTransformer(spec.transformer)
    assign(network, weights.items(), dtype=precision.dtype, device=precision.device)
    drawer = Model(spec, precision, origin=Origin(name=str(config.folder)), frugal=False, fast="off")
    drawer.parts.replace("transformer", network.eval().requires_grad_(False))
    if text is not None:
        drawer.parts.replace("text", _text_encoder(spec, precision, text))
    wanted = config.preview
    requests = [
        ImageRequest(prompt=prompt, steps=wanted.steps, guidance=wanted.guidance, seed=wanted.seed)
        for prompt in wanted.prompts or PROMPTS
    ]
    return [drawer.images(request)[0] for request in requests]


def _text_encoder(spec: ModelSpec, precision: Precision, weights: Mapping[str, torch.Tensor]) -> TextEncoder:
    model = build_gemma(spec.text_config, "meta")
    assign(model, weights.items(), dtype=precision.dtype, device=precision.device)
    return TextEncoder(model, load_tokenizer(spec.tokenizer_folder))


def save_sheet(path: Path, sheet: Image.Image, prompts: Sequence[str] = ()) -> None:
    """Write a PNG with the prompts, one a line, in its text chunk `prompts`; whole or not at all."""
    ensure_writable_folder(path.parent)
    texts = PngInfo()
    texts.add_itxt("prompts", "\n".join(prompts))
    atomic_write(path, lambda draft: sheet.save(draft, format="PNG", pnginfo=texts))
