"""Train the model that ships with sanakit, from nothing: `python -m recipes.toybox [STAGE ...]` or `make toybox`.

Stages, each resumable (run it again after an interruption and it goes on):
  render       scenes of the Toybox world to runs/toybox/{train,held}
  autoencoder  DC-AE on the rendered pictures
  decoder      its decoder once more, on whole pictures, the encoder frozen
  latents      the pictures through the frozen encoder
  transformer  text encoder and flow transformer together, on latents and captions
  measure      PSNR, SSIM and sharpness of edges on held-out scenes
  ship         averaged weights, as a diffusers folder, to src/sanakit/toybox/model
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from recipes.settings import bf16_trainer, settings, shortened
from recipes.toybox_contrast import CONTRAST, EVERY, PAIRS, TransformerBatch, mirrored, side_contrast
from recipes.toybox_model import (
    TextToVelocity,
    build_tokenizer,
    draw_lines,
    read_captions,
    text_config,
)
from recipes.toybox_shards import RenderProgress, SceneShards, render_dataset
from sanakit.autoencoder import DCAE
from sanakit.autoencoder import PRESETS as AUTOENCODERS
from sanakit.base.files import atomic_write
from sanakit.base.seeds import batch_indices
from sanakit.evaluation import edge_sharpness, psnr, ssim
from sanakit.flow.path import LinearPath
from sanakit.flow.times import ShiftedTimes
from sanakit.text import load_tokenizer
from sanakit.toybox.grammar import Split
from sanakit.training import reconstruction, sentences, velocity
from sanakit.weights import ModelSpec, Schedule, write_folder

RUNS = Path("runs/toybox")
MODEL = Path("src/sanakit/toybox/model")
SIZE = 256
TRAIN_SCENES = 24_000
HELD_SCENES = 500
SHIFT = 2.0
LATENT_NOISE = 0.03
ANCHOR = 0.01
CROP = 128
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

AUTOENCODER_BATCH, DECODER_BATCH, TRANSFORMER_BATCH = 8, 4, 64
AUTOENCODER = settings(
    RUNS / "autoencoder", 10_000, size=CROP, batch=AUTOENCODER_BATCH, lr=6e-4, warmup=100, cooldown=0.4, ema=0.998,
    minutes=4,
)  # fmt: skip
DECODER = settings(
    RUNS / "decoder",
    1_000,
    size=SIZE,
    batch=DECODER_BATCH,
    lr=4e-4,
    warmup=30,
    cooldown=0.7,
    ema=0.995,
    minutes=3,
)
TRANSFORMER = settings(
    RUNS / "transformer", 20_000, size=SIZE, batch=TRANSFORMER_BATCH, lr=1e-3, weight_decay=0.01, warmup=200,
    cooldown=0.3, ema=0.999, minutes=4,
)  # fmt: skip
CAPTION_DROPOUT = 0.1
PLACING = 0.1


def render() -> None:
    """Render the scenes to train on, and those held out."""
    render_scenes("held", HELD_SCENES, "held_out", seed=1)
    render_scenes("train", TRAIN_SCENES, "train", seed=0)


def render_scenes(name: str, count: int, split: Split, seed: int) -> None:
    """Render scenes of a split to runs/toybox/NAME with every core, telling how far it is."""

    def tell(progress: RenderProgress) -> None:
        print(f"scene {progress.done}/{progress.total} eta {progress.remaining / 60:.1f} min", flush=True)

    render_dataset(RUNS / name, count, SIZE, split, seed=seed, workers=os.cpu_count() or 1, progress=tell)


def pixels_of(shards: SceneShards, indices: list[int]) -> Tensor:
    """[B, 3, H, W] in -1..1, channels last."""
    images = torch.stack([shards.image(index) for index in indices]).to(memory_format=torch.channels_last)
    return images.float() / 127.5 - 1


def noise_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise, the same on every device."""
    return torch.randn(x.shape, generator=generator).to(x.device, x.dtype)


def train_autoencoder(steps: int | None = None) -> None:
    """DC-AE by reconstruction; noise on the latent teaches the decoder to bear a flow's errors."""
    shards = SceneShards(RUNS / "train")
    torch.manual_seed(0)
    model = DCAE(AUTOENCODERS["toybox"]).to(DEVICE, memory_format=torch.channels_last)
    encode, decode = torch.compile(model.encode), torch.compile(model.decode)

    def batches(step: int) -> Tensor:
        pixels = pixels_of(shards, batch_indices(step, AUTOENCODER_BATCH, len(shards), seed=0))
        top, left = (random.Random(step).randrange(0, SIZE - CROP + 1, 8) for _ in range(2))
        pixels = pixels[..., top : top + CROP, left : left + CROP].contiguous(
            memory_format=torch.channels_last
        )
        return (pixels.flip(-1) if step % 2 else pixels).to(DEVICE)

    def loss(pixels: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        latent = encode(pixels)
        power = latent.float().square().mean()
        parts = reconstruction(decode(latent + LATENT_NOISE * noise_like(latent, generator)), pixels)
        # Blocks add what their norms let through, so a latent far from unit size would drown them.
        return {
            "loss": parts["loss"] + ANCHOR * power.log().square(),
            "psnr": parts["psnr"],
            "power": power.detach(),
        }

    for report in sentences(bf16_trainer(model, shortened(AUTOENCODER, steps)).train(loss, batches)):
        print(report, flush=True)


def train_decoder(steps: int | None = None) -> None:
    """Refine the decoder on whole pictures; the encoder stays as it is, and with it the latents."""
    shards, model = SceneShards(RUNS / "train"), trained_autoencoder(refined=False)
    encode, decode = torch.compile(model.encode), torch.compile(model.decode)

    def batches(step: int) -> Tensor:
        return pixels_of(shards, batch_indices(step, DECODER_BATCH, len(shards), seed=1)).to(DEVICE)

    def loss(pixels: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        with torch.no_grad():
            latent = encode(pixels)
        return reconstruction(decode(latent + LATENT_NOISE * noise_like(latent, generator)), pixels)

    for report in sentences(bf16_trainer(model.decoder, shortened(DECODER, steps)).train(loss, batches)):
        print(report, flush=True)


def trained_autoencoder(refined: bool = True) -> DCAE:
    """The autoencoder with its averaged weights, and those of its refined decoder where there are any."""
    model = DCAE(AUTOENCODERS["toybox"])
    bf16_trainer(model, AUTOENCODER).ema.copy_to(model)
    if refined and DECODER.folder.exists():
        bf16_trainer(model.decoder, DECODER).ema.copy_to(model.decoder)
    return model.to(DEVICE, memory_format=torch.channels_last).eval()


@torch.no_grad()
def encode_latents(count: int | None = None) -> None:
    """Write runs/toybox/latents.pt: unscaled latents [n, C, h, w] bf16 and 1 / std as the scaling factor."""
    shards, model = SceneShards(RUNS / "train"), trained_autoencoder()
    encode, total = torch.compile(model.encode), count or len(shards)
    parts, begun = [], time.monotonic()
    for start in range(0, total, 16):
        indices = list(range(start, min(start + 16, total)))
        with torch.autocast(DEVICE.type, torch.bfloat16):
            parts.append(encode(pixels_of(shards, indices).to(DEVICE)).to("cpu", torch.bfloat16))
        if start % 1600 == 1584:
            left = (time.monotonic() - begun) * (total - start - 16) / (start + 16)
            print(f"latents {start + 16}/{total} eta {left / 60:.1f} min", flush=True)
    latents = torch.cat(parts)
    factor = round(1 / float(latents.float().std()), 5)
    stored = {"latents": latents, "scaling_factor": factor}
    atomic_write(RUNS / "latents.pt", lambda path: torch.save(stored, path))
    print(f"latents {tuple(latents.shape)}, scaling factor {factor}")


def train_transformer(steps: int | None = None) -> None:
    """Text encoder and flow transformer together: the captions are short, so the encoder learns from the flow."""
    shards = SceneShards(RUNS / "train")
    stored = torch.load(RUNS / "latents.pt", weights_only=True)
    latents, factor = stored["latents"], stored["scaling_factor"]
    torch.manual_seed(0)
    tokenizer = build_tokenizer(RUNS / "tokenizer", shards)
    model = TextToVelocity(len(tokenizer)).to(DEVICE)
    forward = torch.compile(model)
    path, times = LinearPath(), ShiftedTimes(SHIFT)

    def batches(step: int) -> TransformerBatch:
        indices = batch_indices(step, TRANSFORMER_BATCH, len(latents), seed=0)
        lines = draw_lines(shards, indices, step, CAPTION_DROPOUT)
        sided = [row for row, line in enumerate(lines) if mirrored(line) != line][:PAIRS]
        pairs = None
        if step % EVERY == 0 and len(sided) == PAIRS:
            captions = [lines[row] for row in sided]
            pairs = read_captions(tokenizer, captions + [mirrored(line) for line in captions]).to(DEVICE)
        x0 = (latents[indices].float() * factor).to(DEVICE)
        return TransformerBatch(x0, read_captions(tokenizer, lines).to(DEVICE), x0[sided], pairs)

    def loss(batch: TransformerBatch, generator: torch.Generator) -> dict[str, Tensor]:
        t = times.sample(len(batch.x0), generator).to(DEVICE)
        noise = noise_like(batch.x0, generator)
        # Torch's flash attention takes a third of the step in its backward pass on a CPU; plain products a tenth.
        with sdpa_kernel(SDPBackend.MATH):
            predicted, misplaced = forward(path.point(batch.x0, noise, t), (1000 * t).floor(), batch.captions)
            sides = side_contrast(forward, path, batch, generator)
        flow = velocity(predicted, path.target(batch.x0, noise, t))["loss"]
        total = flow + PLACING * misplaced + CONTRAST * sides
        return {"loss": total, "flow": flow.detach(), "placing": misplaced.detach(), "sides": sides.detach()}

    for report in sentences(bf16_trainer(model, shortened(TRANSFORMER, steps)).train(loss, batches)):
        print(report, flush=True)


@torch.no_grad()
def measure() -> None:
    """Print how well the autoencoder gives the held-out scenes back, with 95 % intervals of the means."""
    shards, model = SceneShards(RUNS / "held"), trained_autoencoder()
    scores = []
    for start in range(0, len(shards), 10):
        pixels = pixels_of(shards, list(range(start, min(start + 10, len(shards))))).to(DEVICE)
        pair = (model(pixels).clamp(-1, 1) + 1) / 2, (pixels + 1) / 2
        scores.append(torch.stack([psnr(*pair), ssim(*pair), edge_sharpness(*pair)]))
    table = torch.cat(scores, dim=1).cpu()  # [3, n]
    for name, row in zip(("PSNR dB", "SSIM", "edge sharpness"), table, strict=True):
        print(
            f"{name} {row.mean():.3f} +- {1.96 * row.std() / len(row) ** 0.5:.3f} on {len(row)} held-out scenes"
        )


def ship() -> None:
    """Write the averaged weights as a diffusers folder in bf16 to src/sanakit/toybox/model."""
    factor = torch.load(RUNS / "latents.pt", weights_only=True)["scaling_factor"]
    tokenizer = load_tokenizer(RUNS / "tokenizer")
    joint = TextToVelocity(len(tokenizer))
    bf16_trainer(joint, TRANSFORMER).ema.copy_to(joint)
    spec = ModelSpec(
        folder=MODEL,
        transformer_source=MODEL / "transformer",
        kind="sana",
        transformer=joint.transformer.config,
        autoencoder=replace(AUTOENCODERS["toybox"], scaling_factor=factor),
        schedule=Schedule(shift=SHIFT),
        instruct=False,
        bins=False,
        text_config=text_config(len(tokenizer)),
    )
    write_folder(
        spec,
        transformer=joint.transformer,
        autoencoder=trained_autoencoder(),
        text_encoder=joint.text,
        tokenizer=RUNS / "tokenizer",
        dtype=torch.bfloat16,
        force=True,
    )


STAGES: dict[str, Callable[[], None]] = {
    "render": render,
    "autoencoder": train_autoencoder,
    "decoder": train_decoder,
    "latents": encode_latents,
    "transformer": train_transformer,
    "measure": measure,
    "ship": ship,
}


def main() -> None:
    """Run the stages named on the command line, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], help="default: all, in order")
    for stage in parser.parse_args().stages or STAGES:
        print(f"== {stage}", flush=True)
        try:
            STAGES[stage]()
        except KeyboardInterrupt:
            print(f"\nstopped in stage {stage}; the same command goes on from there", file=sys.stderr)
            raise SystemExit(130) from None


if __name__ == "__main__":
    main()
