"""Toybox's autoencoder on one GPU: pictures rendered on the card, trained on, and encoded."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from recipes.gpu_loop import Learner, Pace, recorded, run_for
from recipes.gpu_run import ON_GPU, GpuRun, say
from recipes.gpu_scenes import CHUNK, SceneTensors, render_pictures, tensors_of
from recipes.settings import fast_autocast
from recipes.toybox import ANCHOR, fidelity_of, steep_reconstruction
from recipes.toybox_model import DEVICE
from recipes.toybox_second import shipped_autoencoder
from recipes.toybox_shards import SIZE, keep
from recipes.toybox_sharpen import LATENT_NOISE
from sanakit.autoencoder import DCAE
from sanakit.toybox.sampling import sample_scene
from sanakit.training.objectives.autoencoding import to_range

BATCH, RATE = 64, 5e-4
AT_ONCE = 16  # chunks of rendered pictures that are encoded together


def trained_autoencoder(run: GpuRun) -> DCAE:
    """The autoencoder of the run, or the shipped one if the run has none, on the device."""
    model, _ = shipped_autoencoder()
    if (run.folder / "autoencoder.pt").exists():
        model.load_state_dict(run.tensors("autoencoder.pt"))
    model.to(DEVICE, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def train_autoencoder(run: GpuRun) -> None:
    """Train encoder and decoder on whole pictures."""
    model, pictures = trained_autoencoder(run).train(), pictures_of(run)

    def losses() -> dict[str, Tensor]:
        rows, mirrored = draw_rows(run, len(pictures))
        return autoencoder_losses(model, flip(to_range(pictures[rows]), mirrored))

    train(run, model, model, losses, pictures[-run.held :])


def train_decoder(run: GpuRun) -> None:
    """Train the decoder alone; latents stay, and what was trained on them."""
    model, pictures = trained_autoencoder(run).requires_grad_(False), pictures_of(run)
    with torch.no_grad():
        parts = [
            (_encoded(model.encode, some), _encoded(model.encode, some.flip(-1)))
            for some in pictures.split(AT_ONCE * CHUNK)
        ]
    latents = torch.stack([torch.cat(side) for side in zip(*parts, strict=True)])  # [2, n, C, h, w]
    model.decoder.requires_grad_(True).train()

    def losses() -> dict[str, Tensor]:
        rows, mirrored = draw_rows(run, len(pictures))
        with fast_autocast(DEVICE):
            decoded = decode_noisy(model, latents[mirrored.long(), rows].float())
        return steep_reconstruction(decoded, flip(to_range(pictures[rows]), mirrored))

    train(run, model, model.decoder, losses, pictures[-run.held :])


def train(
    run: GpuRun, model: DCAE, trained: nn.Module, losses: Callable[[], dict[str, Tensor]], held: Tensor
) -> None:
    """Train a part of an autoencoder, and write all of it to the run; held: pictures that say how good it is."""
    learner = Learner(trained, Pace(lr=run.lr or RATE, cooldown=0.7, ema=0.995))
    compute = recorded(learner.gradients(losses))

    def step(number: int, done: float) -> dict[str, Tensor]:
        return {**compute(), "gradient": learner.step(done)}

    say(f"autoencoder: {run_for(run.seconds, step, say)} steps of {run.batch or BATCH}")
    learner.average.copy_to(trained)
    weights = {name: value.to("cpu", torch.bfloat16) for name, value in model.state_dict().items()}
    keep(run.folder / "autoencoder.pt", weights)
    say(told_fidelity(model, held))


def pictures_of(run: GpuRun) -> Tensor:
    """The pictures that the autoencoder learns from, uint8 [n, 3, H, W]."""
    warm_renderer()
    return rendered(run.open_scenes("numbers.pt"))


def draw_rows(run: GpuRun, of: int) -> tuple[Tensor, Tensor]:
    """Numbers of pictures of a batch, and which of them are mirrored: [B] twice."""
    count = run.batch or BATCH
    return run.rows(count, of), torch.rand(count, device=DEVICE) < 0.5


def flip(pixels: Tensor, mirrored: Tensor) -> Tensor:
    """Pictures [B, 3, H, W], of which some [B] are mirrored."""
    return torch.where(mirrored[:, None, None, None], pixels.flip(-1), pixels)


def decode_noisy(model: DCAE, latent: Tensor) -> Tensor:
    """Decode latents with noise, which is what a flow's errors are to the decoder."""
    return model.decode(latent + LATENT_NOISE * torch.randn_like(latent))


def autoencoder_losses(model: DCAE, pixels: Tensor) -> dict[str, Tensor]:
    """`loss` and its parts, of pictures [B, 3, H, W] in -1..1."""
    with fast_autocast(DEVICE):
        latent = model.encode(pixels)
        decoded = decode_noisy(model, latent)
    found, power = steep_reconstruction(decoded, pixels), latent.float().square().mean()
    # Blocks add what their norms let through, so a latent far from unit size would drown them.
    return {**found, "loss": found["loss"] + ANCHOR * power.log().square(), "power": power.detach()}


@torch.no_grad()
def encode_latents(run: GpuRun) -> None:
    """Encode all scenes, rendered for it piece by piece: [n, C, h, w] bf16, and the factor that scales them."""
    warm_renderer()
    scenes = run.open_scenes()
    if run.wait:
        run.ready("autoencoder.pt")
    encode, begun = trained_autoencoder(run).eval().encode, time.monotonic()
    found, waiting = [], list[Tensor]()
    for part in render_pictures(scenes, SIZE, compiled=ON_GPU):
        waiting.append(part)
        if len(waiting) == AT_ONCE:
            found.append(_encoded(encode, torch.cat(waiting)))
            waiting.clear()
    found += [_encoded(encode, torch.cat(waiting))] if waiting else []
    latents = torch.cat(found)
    factor = torch.tensor(round(1 / float(latents.float().std()), 5))
    keep(run.folder / "latents.pt", {"latents": latents.cpu(), "factor": factor})
    spent = time.monotonic() - begun
    say(f"latents {tuple(latents.shape)} in {spent:.1f} s, scaling factor {float(factor):g}")


def _encoded(encode: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
    with fast_autocast(DEVICE):
        return encode(to_range(pictures)).to(torch.bfloat16)


def measure(run: GpuRun) -> None:
    """Print how well the autoencoder gives back what no stage has seen."""
    held = run.open_scenes().map(lambda x: x[-run.held :])
    say(told_fidelity(trained_autoencoder(run).eval(), rendered(held)))


@torch.no_grad()
def told_fidelity(model: DCAE, pictures: Tensor) -> str:
    """PSNR, SSIM and sharpness of edges of round trips, in words."""
    means = torch.cat([fidelity_of(model, to_range(some)) for some in pictures.split(50)], dim=1).mean(1)
    return "PSNR {:.2f} dB, SSIM {:.3f}, edge sharpness {:.3f}".format(*means) + f" of {len(pictures)}"


def rendered(scenes: SceneTensors) -> Tensor:
    """Pictures of scenes, uint8 [n, 3, H, W] on the device."""
    found = torch.empty(len(scenes), 3, SIZE, SIZE, dtype=torch.uint8, device=DEVICE)
    at, begun = 0, time.monotonic()
    for part in render_pictures(scenes, SIZE, compiled=ON_GPU):
        found[at : at + len(part)] = part
        at += len(part)
    if ON_GPU:
        torch.cuda.synchronize()
    say(f"{at} pictures rendered in {time.monotonic() - begun:.1f} s")
    return found


def warm_renderer() -> None:
    """Compile the renderer before there are scenes."""
    if ON_GPU:
        one = tensors_of([sample_scene(0)], captions=0).map(lambda x: x.to(DEVICE))
        list(render_pictures(one, SIZE))
