"""Distil the decoder of Toybox into a plainer one, as DC-AE-lite is to DC-AE.

    python -m recipes.toybox_lite            training, measuring, writing; run it again and it goes on
    python -m recipes.toybox_lite measure    how well it gives held-out scenes back, beside the shipped decoder

Stages:
  train     the decoder alone, on whole pictures of runs/toybox/train (`python -m recipes.toybox render`)
  measure   PSNR, SSIM and sharpness of edges on held-out scenes, and seconds for a picture, of both decoders
  write     encoder and averaged decoder in bf16 to runs/toybox-lite, for `sanakit generate --decoder runs/toybox-lite`

Half the channels from 32 x 32 on and fewer blocks: a third of the time of a picture. The two coarsest stages begin with
the trained weights. The encoder stays as it is, and with it the latents that `python -m recipes.toybox latents` wrote.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from recipes.settings import recipe_trainer, resumable, run_stages, run_training, settings, shortened
from recipes.toybox import FIDELITY, fidelity, noise_like, pixels_of
from recipes.toybox_model import DEVICE
from recipes.toybox_second import LATENTS, shipped_autoencoder
from recipes.toybox_shards import RUNS, SIZE, SceneShards
from recipes.toybox_sharpen import LATENT_NOISE
from sanakit.autoencoder import DCAE, PRESETS, AutoencoderConfig, Stage
from sanakit.base.seeds import batch_indices
from sanakit.training import TrainConfig, reconstruction
from sanakit.weights import save_autoencoder

FOLDER = Path("runs/toybox-lite")
BATCH = 4
LITE = settings(
    RUNS / "lite", 600, size=SIZE, batch=BATCH, lr=1e-3, warmup=30, cooldown=0.7, ema=0.995, minutes=3,
)  # fmt: skip
MEASURED = 48  # held-out scenes


def lite_config(full: AutoencoderConfig) -> AutoencoderConfig:
    """The configuration of the lite decoder beside the full one's encoder."""
    coarse = (replace(stage, depth=1) for stage in full.decoder[-2:])
    fine = (Stage("res", 24, 0), Stage("res", 24, 1), Stage("res", 48, 2), Stage("res", 96, 2))
    return replace(full, decoder=(*fine, *coarse))


def fresh_lite() -> tuple[DCAE, AutoencoderConfig]:
    """The shipped autoencoder with a lite decoder: whatever has the same name and shape in both begins as it is."""
    full, factor = shipped_autoencoder()
    config = lite_config(replace(PRESETS["toybox"], scaling_factor=factor))
    torch.manual_seed(0)
    lite, own = DCAE(config), full.state_dict()
    shared = {name: own[name] for name, value in lite.state_dict().items()
              if name in own and own[name].shape == value.shape}  # fmt: skip
    lite.load_state_dict(shared, strict=False)
    return lite.to(DEVICE, memory_format=torch.channels_last), config  # type: ignore[call-overload]


def trained_lite(config: TrainConfig = LITE) -> tuple[DCAE, AutoencoderConfig]:
    """The lite autoencoder with the averaged weights of the newest checkpoint."""
    lite, design = fresh_lite()
    recipe_trainer(lite.decoder, config).ema.copy_to(lite.decoder)
    return lite.eval(), design


def train(steps: int | None = None) -> None:
    """Train the decoder on whole pictures, from the newest checkpoint if there is one."""
    shards, (lite, _) = SceneShards(RUNS / "train"), fresh_lite()
    latents = torch.load(LATENTS, weights_only=True)["latents"]
    decode = torch.compile(lite.decode)

    def batches(step: int) -> tuple[Tensor, Tensor]:
        indices = batch_indices(step, BATCH, len(shards), seed=3)
        return latents[indices].float().to(DEVICE), pixels_of(shards, indices).to(DEVICE)

    def loss(batch: tuple[Tensor, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        latent, pixels = batch
        return reconstruction(decode(latent + LATENT_NOISE * noise_like(latent, generator)), pixels)

    run_training(lite.decoder, shortened(LITE, steps), loss, batches)


@torch.no_grad()
def measure() -> None:
    """Print fidelity and speed of the shipped and the lite decoder."""
    held = SceneShards(RUNS / "held")
    for name, model in (("toybox", shipped_autoencoder()[0].eval()), ("toybox-lite", trained_lite()[0])):
        means = fidelity(model, held, MEASURED).mean(dim=1).tolist()
        told = ", ".join(f"{what} {mean:.3f}" for what, mean in zip(FIDELITY, means, strict=True))
        print(f"{name}: {told}, {seconds(model):.3f} s a picture", flush=True)


def seconds(model: DCAE) -> float:
    """The time in which a latent is decoded, the least of some."""
    latent, times = torch.zeros(1, model.config.latent_channels, SIZE // 32, SIZE // 32, device=DEVICE), []
    for _ in range(5):
        start = time.perf_counter()
        model.decode(latent)
        times.append(time.perf_counter() - start)
    return min(times)


def write(folder: Path = FOLDER) -> None:
    """Write encoder and averaged decoder in bf16."""
    lite, config = trained_lite()
    save_autoencoder(folder, config, lite, dtype=torch.bfloat16)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    print(f"{folder} is written, {size / 1e6:.1f} MB")


STAGES: dict[str, Callable[[], None]] = {"train": train, "measure": measure, "write": write}


@resumable
def main() -> None:
    """Run the stages named on the command line, or all."""
    run_stages(__doc__, STAGES)


if __name__ == "__main__":
    main()
