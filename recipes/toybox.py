"""Train the model that ships with sanakit, from nothing: `python -m recipes.toybox [STAGE ...]` or `make toybox`.

Stages, each resumable (run it again after an interruption and it goes on):
  render       scenes of the Toybox world to runs/toybox/{train,held}
  autoencoder  DC-AE on the rendered pictures
  decoder      its decoder once more, on whole pictures, the encoder frozen; begins as that of `recipes.toybox_gpu` if
               its run is there, which has seen a hundred times as many pictures
  sharpen      its decoder against a critic (recipes/toybox_sharpen.py); the shipped one if none was trained here
  latents      the pictures through the frozen encoder; through the shipped one if none was trained here
  transformer  text encoder and flow transformer together, on latents and captions
  second       the shipped ones, trained on with what `recipes/toybox_second.py` switches on
  paraphrase   the shipped text encoder, so that it reads other words as plain ones (recipes/toybox_paraphrase.py)
  measure      PSNR, SSIM and sharpness of edges on held-out scenes
  ship         averaged weights, as a diffusers folder, to src/sanakit/toybox/model
  words        the shipped weights again, with a token for every word of captions, and the text encoder of `paraphrase`
               if one was trained here
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from recipes.gpu_run import FOLDER as GPU_FOLDER
from recipes.settings import (
    fast_autocast,
    recipe_trainer,
    resumable,
    run_stages,
    run_training,
    settings,
    shortened,
)
from recipes.toybox_flow import SHIFT, FlowTraining, open_scenes
from recipes.toybox_model import (
    DEVICE,
    MODEL,
    TextToVelocity,
    between,
    build_tokenizer,
    fresh_networks,
    text_config,
)
from recipes.toybox_paraphrase import PARAPHRASE, paraphrased_networks, train_paraphrase
from recipes.toybox_second import (
    HELD_LATENTS,
    LATENTS,
    SECOND,
    second_training,
    shipped_autoencoder,
    shipped_networks,
    train_second,
)
from recipes.toybox_shards import RUNS, SHARD, SIZE, RenderProgress, SceneShards, keep, render_dataset
from recipes.toybox_sharpen import LATENT_NOISE, SHARPEN, load_sharpened, train_sharpened
from recipes.toybox_text import ABOUT, extended_text
from sanakit.autoencoder import DCAE
from sanakit.autoencoder import PRESETS as AUTOENCODERS
from sanakit.base.seeds import batch_indices
from sanakit.evaluation import edge_sharpness, psnr, ssim
from sanakit.text import load_tokenizer, save_tokenizer
from sanakit.toybox.grammar import Split
from sanakit.toybox.words import all_words
from sanakit.training import reconstruction
from sanakit.training.objectives.autoencoding import to_range
from sanakit.training.objectives.perceptual import slope_deficit, steepness_error
from sanakit.weights import ModelSpec, Schedule, write_folder

GPU_WEIGHTS = GPU_FOLDER / "autoencoder.pt"
TRAIN_SCENES = 24_000
HELD_SCENES = 500
Coding = Callable[[Tensor], Tensor]
"""Half of an autoencoder: pictures to latents, or back."""

ANCHOR = 0.01
STEEP = 20.0
"""Weight of the squared error of differences: with it, it is about as large as the L1 of pixels."""
DEFICIT = 0.25
"""Weight of the slope that edges lack; with 0.5 they get halos (docs/toybox.md)."""
CROP = 128

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
    return to_range(torch.stack([shards.image(index) for index in indices]))


def noise_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise, the same on every device."""
    return torch.randn(x.shape, generator=generator).to(x.device, x.dtype)


def train_autoencoder(steps: int | None = None) -> None:
    """DC-AE by reconstruction; noise on the latent teaches the decoder to bear a flow's errors."""
    shards = SceneShards(RUNS / "train")
    torch.manual_seed(0)
    model = DCAE(AUTOENCODERS["toybox"]).to(DEVICE, memory_format=torch.channels_last)  # type: ignore[call-overload]
    encode: Coding = torch.compile(model.encode)
    decode: Coding = torch.compile(model.decode)

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

    run_training(model, shortened(AUTOENCODER, steps), loss, batches)


def train_decoder(steps: int | None = None) -> None:
    """Refine the decoder on whole pictures; the encoder stays as it is, and with it the latents."""
    shards, model = SceneShards(RUNS / "train"), trained_autoencoder(refined=False, sharpened=False)
    if GPU_WEIGHTS.exists():
        load_decoder(model, torch.load(GPU_WEIGHTS, weights_only=True))
    encode: Coding = torch.compile(model.encode)
    decode: Coding = torch.compile(model.decode)

    def batches(step: int) -> Tensor:
        return pixels_of(shards, batch_indices(step, DECODER_BATCH, len(shards), seed=1)).to(DEVICE)

    def loss(pixels: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        with torch.no_grad():
            latent = encode(pixels)
        return steep_reconstruction(decode(latent + LATENT_NOISE * noise_like(latent, generator)), pixels)

    run_training(model.decoder, shortened(DECODER, steps), loss, batches)


def steep_reconstruction(decoded: Tensor, pixels: Tensor) -> dict[str, Tensor]:
    """The losses of `reconstruction`, the squared error of differences, and the slope that edges lack, weighted."""
    parts, steep = reconstruction(decoded, pixels), steepness_error(decoded.float() - pixels)
    deficit = slope_deficit(decoded, pixels)
    loss = parts["loss"] + STEEP * steep + DEFICIT * deficit
    return {**parts, "loss": loss, "steep": steep.detach(), "deficit": deficit.detach()}


def load_decoder(model: DCAE, weights: Mapping[str, Tensor]) -> None:
    """Overwrite the decoder by that of another autoencoder of the same shape."""
    own = {name: value for name, value in weights.items() if name.startswith("decoder.")}
    model.load_state_dict(model.state_dict() | own)


def sharpen() -> None:
    """Train the decoder against a critic."""
    train_sharpened(trained_autoencoder(sharpened=False))


def trained_autoencoder(refined: bool = True, sharpened: bool = True) -> DCAE:
    """The autoencoder with its averaged weights, the shipped one if none was trained here.

    refined, sharpened: with the decoder of these stages where there is one.
    """
    if AUTOENCODER.folder.exists():
        model = DCAE(AUTOENCODERS["toybox"])
        recipe_trainer(model, AUTOENCODER).ema.copy_to(model)
    else:
        model, _ = shipped_autoencoder()
    if refined and DECODER.folder.exists():
        recipe_trainer(model.decoder, DECODER).ema.copy_to(model.decoder)
    if sharpened and SHARPEN.folder.exists():
        load_sharpened(model)
    model.to(DEVICE, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval()


def encode_latents() -> None:
    """Write latents.pt and held-latents.pt: unscaled [n, C, h, w] bf16, and 1 / std as the scaling factor.

    Latents of the shipped autoencoder keep its factor, which its transformer knows.
    """
    encode = torch.compile(trained_autoencoder().encode)
    factor = None if AUTOENCODER.folder.exists() else shipped_autoencoder()[1]
    for name, path in (("held", HELD_LATENTS), ("train", LATENTS)):
        latents = encoded(encode, RUNS / name)
        factor = factor or round(1 / float(latents.float().std()), 5)
        keep(path, {"latents": latents, "scaling_factor": factor})
        print(f"{name}: latents {tuple(latents.shape)}, scaling factor {factor}", flush=True)


def encoded(encode: Coding, folder: Path) -> Tensor:
    """The latents of a folder's pictures; every thousand are kept beside the pictures, so a second call resumes."""
    shards, parts, begun = SceneShards(folder), [], time.monotonic()
    for start in range(0, len(shards), SHARD):
        rows, path = (
            range(start, min(start + SHARD, len(shards))),
            folder / f"latents-{start // SHARD:05d}.pt",
        )
        if not path.exists():
            keep(path, encoded_rows(encode, shards, rows))
        parts.append(torch.load(path, weights_only=True))
        left = (time.monotonic() - begun) * (len(shards) - rows.stop) / rows.stop
        print(f"latents {rows.stop}/{len(shards)} eta {left / 60:.1f} min", flush=True)
    return torch.cat(parts)


@torch.no_grad()
def encoded_rows(encode: Coding, shards: SceneShards, rows: range) -> Tensor:
    """The latents of some pictures, [n, C, h, w] bf16."""
    parts = []
    for start in rows[::16]:
        some = list(range(start, min(start + 16, rows.stop)))
        with fast_autocast(DEVICE):
            parts.append(encode(pixels_of(shards, some).to(DEVICE)).to("cpu", torch.bfloat16))
    return torch.cat(parts)


def train_transformer(steps: int | None = None) -> None:
    """Text encoder and flow transformer together: the captions are short, so the encoder learns from the flow."""
    scenes = open_scenes(RUNS / "train", LATENTS)
    torch.manual_seed(0)
    tokenizer = build_tokenizer(RUNS / "tokenizer", scenes.shards)
    joint = fresh_networks(len(tokenizer)).to(DEVICE)
    training = FlowTraining(joint, scenes, tokenizer, batch=TRANSFORMER_BATCH)
    run_training(joint, shortened(TRANSFORMER, steps), training.losses, training.batches)


FIDELITY = ("PSNR dB", "SSIM", "edge sharpness")


@torch.no_grad()
def fidelity(model: DCAE, shards: SceneShards, count: int | None = None) -> Tensor:
    """How well an autoencoder gives the first pictures of a set back, or all: [3, n], the measures of `FIDELITY`."""
    scores, numbers = [], range(len(shards) if count is None else count)
    for start in range(0, len(numbers), 10):
        scores.append(fidelity_of(model, pixels_of(shards, list(numbers[start : start + 10])).to(DEVICE)))
    return torch.cat(scores, dim=1).cpu()


def fidelity_of(model: DCAE, pixels: Tensor) -> Tensor:
    """How well an autoencoder gives pictures [n, 3, H, W] in -1..1 back: [3, n], the measures of `FIDELITY`."""
    pair = (model(pixels).clamp(-1, 1) + 1) / 2, (pixels + 1) / 2
    return torch.stack([psnr(*pair), ssim(*pair), edge_sharpness(*pair)])


def measure() -> None:
    """Print how well the autoencoder gives the held-out scenes back, with 95 % intervals of the means."""
    for name, row in zip(FIDELITY, fidelity(trained_autoencoder(), SceneShards(RUNS / "held")), strict=True):
        print(
            f"{name} {row.mean():.3f} +- {1.96 * row.std() / len(row) ** 0.5:.3f} on {len(row)} held-out scenes"
        )


def ship() -> None:
    """Write the averaged weights as a diffusers folder in bf16 to src/sanakit/toybox/model."""
    factor = torch.load(LATENTS, weights_only=True)["scaling_factor"]
    write_model(*trained_networks(), trained_autoencoder(), factor)


def ship_words() -> None:
    """Write the shipped networks with a token for every word of captions.

    What they knew stays to the bit, unless a text encoder was trained to read other words; a new word begins as its
    synonym.
    """
    trained = PARAPHRASE.folder.exists()
    networks = paraphrased_networks() if trained else shipped_networks(extended_text)
    write_model(*networks, *shipped_autoencoder())


def write_model(
    tokenizer: PreTrainedTokenizerBase,
    joint: TextToVelocity,
    autoencoder: DCAE,
    factor: float,
    folder: Path = MODEL,
) -> None:
    """Write a diffusers folder in bf16, by default to src/sanakit/toybox/model."""
    save_tokenizer(tokenizer, RUNS / "shipped-tokenizer")
    spec = ModelSpec(
        folder=folder,
        transformer_source=folder / "transformer",
        kind="sana",
        transformer=joint.transformer.config,
        autoencoder=replace(AUTOENCODERS["toybox"], scaling_factor=factor),
        schedule=Schedule(shift=SHIFT),
        instruct=False,
        bins=False,
        text_config=text_config(len(tokenizer)),
        about=ABOUT,
    )
    write_folder(
        spec,
        transformer=joint.transformer,
        autoencoder=autoencoder,
        text_encoder=joint.text,
        tokenizer=RUNS / "shipped-tokenizer",
        words=all_words(),
        dtype=torch.bfloat16,
        force=True,
    )


def trained_networks() -> tuple[PreTrainedTokenizerBase, TextToVelocity]:
    """The tokenizer, and both networks: half-way from the shipped weights to those of the second run, else the first's.

    Of the second run and of the weights that it began with, the mean draws better than either (docs/log.md), as means
    of weights that were fine-tuned from one another do (arXiv 2203.05482). Averaged weights of either run are meant.
    """
    if SECOND.folder.exists():
        training = second_training()
        recipe_trainer(training.model, SECOND).ema.copy_to(training.model)
        return training.tokenizer, between(training.joint, shipped_networks(extended_text)[1])
    tokenizer = load_tokenizer(RUNS / "tokenizer")
    joint = fresh_networks(len(tokenizer))
    recipe_trainer(joint, TRANSFORMER).ema.copy_to(joint)
    return tokenizer, joint


STAGES: dict[str, Callable[[], None]] = {
    "render": render,
    "autoencoder": train_autoencoder,
    "decoder": train_decoder,
    "sharpen": sharpen,
    "latents": encode_latents,
    "transformer": train_transformer,
    "second": train_second,
    "paraphrase": train_paraphrase,
    "measure": measure,
    "ship": ship,
    "words": ship_words,
}
FROM_NOTHING = [stage for stage in STAGES if stage not in ("sharpen", "second", "paraphrase", "words")]


@resumable
def main() -> None:
    """Run the stages named on the command line, or all that train from nothing."""
    run_stages(__doc__, STAGES, FROM_NOTHING, "all but sharpen and second")


if __name__ == "__main__":
    main()
