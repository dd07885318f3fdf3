"""The decoder of Toybox against a critic, DC-AE's third phase: `python -m recipes.toybox sharpen`.

The published phase moves the decoder's last layers. Here all of it moves, since its coarse stages decide where an edge
lies, and an edge beside its place is as far off as a soft one. The encoder is frozen, so latents and what was trained
on them stay. There is no structural loss: in L1 of differences the best guess for an edge that may lie at several
places is no edge at all (the median of each difference is zero), and the critic asks for structure already.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from recipes.settings import recipe_trainer, settings
from recipes.toybox_model import DEVICE
from recipes.toybox_shards import RUNS, SIZE, SceneShards
from sanakit.autoencoder import DCAE
from sanakit.base.seeds import batch_indices
from sanakit.data import PictureBatch
from sanakit.training import OptimizerConfig, TrainConfig, Trainer, sentences
from sanakit.training.objectives import AutoencoderLoss, PatchDiscriminator, Perceptual
from sanakit.training.objectives.autoencoding import AutoencoderPair, Autoencoding
from sanakit.training.sections import AutoencoderRun

BATCH = 4
CRITIC_WIDTH = 32  # a quarter of the published critic's work, which is as much as this decoder's
GROUPS = 8
ADVERSARIAL = 0.2
LATENT_NOISE = 0.03
SHARPEN = replace(
    settings(
        RUNS / "sharpen", 700, size=SIZE, batch=BATCH, lr=2e-4, warmup=20, cooldown=0.5, ema=0.99, minutes=3,
        report=25,
    ),
    autoencoder=AutoencoderRun(
        loss=AutoencoderLoss(perceptual=0.0, adversarial=ADVERSARIAL, latent_noise=LATENT_NOISE),
        critic=OptimizerConfig(lr=4e-4, betas=(0.5, 0.9)),
    ),
)  # fmt: skip


def group_norm(width: int) -> nn.Module:
    """A norm that does not see how many pictures a batch has: four are too few for a batch norm."""
    return nn.GroupNorm(GROUPS, width)


def unused(decoded: Tensor, pixels: Tensor) -> Tensor:
    """Stand for the structural loss, whose weight is zero."""
    return decoded.new_zeros((), dtype=torch.float32)


def sharpening(model: DCAE, config: TrainConfig = SHARPEN) -> tuple[Autoencoding, Trainer]:
    """The losses of the stage and its trainer, of an autoencoder whose decoder it moves in place."""
    model.requires_grad_(False)
    model.decoder.requires_grad_(True)
    torch.manual_seed(0)  # of the critic
    critic = PatchDiscriminator(CRITIC_WIDTH, norm=group_norm).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pair = AutoencoderPair(model, critic).to(DEVICE)
    objective = Autoencoding(config, pair, Perceptual(unused, "none"))
    return objective, recipe_trainer(pair, config, objective.players())


def train_sharpened(model: DCAE, config: TrainConfig = SHARPEN) -> None:
    """Train the decoder of an autoencoder against a critic, on whole pictures, every other one mirrored."""
    shards = SceneShards(RUNS / "train")
    objective, trainer = sharpening(model, config)

    def batches(step: int) -> PictureBatch:
        indices = batch_indices(step, BATCH, len(shards), seed=2)
        pixels = torch.stack([shards.image(index) for index in indices])
        return PictureBatch(
            step=step, epoch=0, bucket=(SIZE, SIZE), indices=tuple(indices), crops=(),
            pixels=pixels.flip(-1) if step % 2 else pixels,
        )  # fmt: skip

    for report in sentences(trainer.train(objective.losses, batches)):
        print(report, flush=True)


@torch.no_grad()
def load_sharpened(model: DCAE) -> None:
    """Overwrite the weights of an autoencoder by the averaged ones of the newest checkpoint."""
    _, trainer = sharpening(model)
    trainer.ema.copy_to(model)
    model.requires_grad_(False)
