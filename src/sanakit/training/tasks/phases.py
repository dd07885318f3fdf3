"""The three phases of DC-AE's training, as a table (arXiv 2410.10733, section 3.2 and figure 6).

    full         low resolution, everything, without a critic: what is in a picture
    adaptation   high resolution, the layers around the latent: a latent that means the same at every size
    refinement   low resolution, the decoder's last layers, with a critic: local detail, the latent untouched

The training code of DC-AE is not public. The paper names the layers of phase 2 as the encoder's head and the decoder's
input, and those of phase 3 as the decoder's head; how many that are is `stages` here. Size, optimiser and learning rate
are the config's; docs/training.md gives the published ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn

from sanakit.autoencoder import DCAE

Trained = Literal["all", "latent", "head"]
"""all: everything. latent: the layers around the latent. head: the decoder's last layers."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase of training an autoencoder.

    Attributes:
        trained: which layers; all others are frozen.
        critic: whether a critic plays.
        stages: how many stages next to the latent (latent) or to the pixels (head) are trained.
    """

    trained: Trained = "all"
    critic: bool = False
    stages: int = 1


PHASES = {
    "full": Phase(),
    "adaptation": Phase(trained="latent"),
    "refinement": Phase(trained="head", critic=True),
}


def trained_parameters(model: DCAE, phase: Phase) -> list[nn.Parameter]:
    """Thaw the parameters that a phase trains and freeze all others, in place; return those that are trained.

    Stages without blocks, such as the finest of the small autoencoders, are not counted.
    """
    model.requires_grad_(False)
    chosen = [p for module in _modules(model, phase) for p in module.parameters()]
    for parameter in chosen:
        parameter.requires_grad_(True)
    return chosen


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
    """Return the first `count` stages that have parameters."""
    return [stage for stage in stages if any(True for _ in stage.parameters())][:count]
