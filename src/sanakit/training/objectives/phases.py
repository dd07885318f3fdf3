"""The three phases of DC-AE's training, as data (arXiv 2410.10733, section 3.2 and figure 6).

    full         low resolution, everything, without the GAN: what is in a picture
    adaptation   high resolution, the layers around the latent: a latent that means the same at every size
    refinement   low resolution, the decoder's last layers, with the GAN: local detail, the latent untouched

The training code of DC-AE is not public. The paper names the layers of phase 2 as the encoder's head and the decoder's
input, and those of phase 3 as the decoder's head; how many that are is `stages` here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, cast

from torch import nn

from sanakit.autoencoder import DCAE
from sanakit.layers.resample import Upsample
from sanakit.training.optim.config import OptimizerConfig

Trained = Literal["all", "latent", "head"]
"""all: everything. latent: the layers around the latent. head: the decoder's last layers."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase of training an autoencoder.

    Attributes:
        name: for reports and folders.
        trained: which layers; all others are frozen.
        gan: with the adversarial loss.
        resolution: of the pictures.
        stages: how many stages next to the latent (latent) or to the pixels (head) are trained.
        optimizer: of the autoencoder.
    """

    name: str
    trained: Trained = "all"
    gan: bool = False
    resolution: Literal["low", "high"] = "low"
    stages: int = 1
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


DCAE_PHASES = (
    Phase(name="full", optimizer=OptimizerConfig(lr=6.4e-5, weight_decay=0.1)),
    Phase(
        name="adaptation",
        trained="latent",
        resolution="high",
        optimizer=OptimizerConfig(lr=1.6e-5, weight_decay=0.001),
    ),
    Phase(
        name="refinement", trained="head", gan=True, optimizer=OptimizerConfig(lr=5.4e-5, betas=(0.5, 0.9))
    ),
)
"""As published; the numbers of AdamW are those reported of the paper's appendix A, for its batch."""


def trained_parameters(model: DCAE, phase: Phase) -> list[nn.Parameter]:
    """The parameters that a phase trains, which it thaws; all others it freezes. In place.

    Stages without blocks, as the finest of the small autoencoders, are not counted.
    """
    model.requires_grad_(False)
    chosen = [p for module in _modules(model, phase) for p in module.parameters()]
    for parameter in chosen:
        parameter.requires_grad_(True)
    return chosen


def last_layer(model: DCAE) -> nn.Parameter:
    """The weight of the convolution that makes the pixels."""
    exit_ = model.decoder.exit
    conv = exit_.conv if isinstance(exit_, Upsample) else exit_
    return cast(nn.Parameter, conv.weight)


def _modules(model: DCAE, phase: Phase) -> Iterator[nn.Module]:
    encoder, decoder = model.encoder, model.decoder
    if phase.trained == "all":
        yield model
    elif phase.trained == "latent":
        yield from (encoder.exit, decoder.entry)
        yield from _nearest(reversed(encoder.stages), phase.stages)
        yield from _nearest(reversed(decoder.stages), phase.stages)
    else:
        yield from (decoder.norm, decoder.exit)
        yield from _nearest(decoder.stages, phase.stages)


def _nearest(stages: Iterable[nn.Module], count: int) -> list[nn.Module]:
    """The first `count` stages that have parameters."""
    return [stage for stage in stages if any(True for _ in stage.parameters())][:count]
