"""A ControlNet of SANA: copies of the base network's first blocks that read a control picture, and steer the base.

    latent ──patch──▶ tokens ──(+)──▶ copy 0 ──▶ copy 1 ──▶ ... ──▶ copy K-1
                               ▲        │          │                  │
    control ──patch──▶ input ──┘     outputs.0  outputs.1        outputs.K-1     residuals [K, B, N, D]
                                        ▼          ▼                  ▼
    base:  block 0 ──▶ block 1 ─────▶ (+) block 2 (+) ...            (+)

`input` and `outputs` begin at zero, so that a fresh ControlNet changes nothing (arXiv 2302.05543, section 3.1; for
transformers arXiv 2401.05252, section 3.3). The control is a latent of the picture's own autoencoder.

The official code and diffusers wire the same weights differently, and both wirings are values of `ControlConfig.lead`.
Letters as in `backbone.py`; K copied blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sanakit.base.sizes import Grid
from sanakit.base.text_states import TextStates
from sanakit.transformer.backbone import Backbone, TextKV
from sanakit.transformer.config import Positions, TransformerConfig
from sanakit.transformer.model import SanaTransformer

COPIES = 7
"""Blocks that the published ControlNets copy."""

_ALIKE = ("width", "patch_size", "latent_channels", "text_width")


@dataclass(frozen=True, kw_only=True)
class ControlConfig:
    """Shape and wiring of one ControlNet.

    Attributes:
        backbone: as of the base network; its depth is lead + copies.
        lead: blocks of the base that tokens pass before the first copy. 0 in diffusers: residual k goes behind block
            k + 1 of the base. 1 in the official code: residual k goes behind block k, and the control has no positions.
        base_depth: blocks of the base that it was made for; None if nothing tells.
    """

    backbone: TransformerConfig
    lead: int = 0
    base_depth: int | None = None

    @property
    def copies(self) -> int:
        """K, the number of residuals."""
        return self.backbone.depth - self.lead

    @property
    def first(self) -> int:
        """The block of the base behind which the first residual goes."""
        return 1 - self.lead

    def mismatch(self, base: TransformerConfig) -> str | None:
        """Return why it can't steer a base network, in words that follow "it"; None if it can."""
        for name in _ALIKE:
            own, wanted = getattr(self.backbone, name), getattr(base, name)
            if own != wanted:
                return f"has {name} {own}, and the model has {wanted}"
        if self.base_depth not in (None, base.depth):
            return f"was made for {self.base_depth} blocks, and the model has {base.depth}"
        if self.first + self.copies > base.depth:
            return f"steers blocks {self.first} to {self.first + self.copies - 1}, and the model has {base.depth}"
        return None


class ControlNet(Backbone):
    """The copies, with their own embeddings."""

    def __init__(self, config: ControlConfig) -> None:
        super().__init__(config.backbone)
        self.control = config
        width = config.backbone.width
        self.input = nn.Linear(width, width)
        self.outputs = nn.ModuleList(nn.Linear(width, width) for _ in range(config.copies))
        for layer in (self.input, *self.outputs):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        latent: Tensor,
        time: Tensor,
        text: TextStates | TextKV,
        control: Tensor,
        guidance: Tensor | None = None,
        positions: Positions | None = None,
    ) -> Tensor:
        """Return the residuals of a control at a noisy latent; `placed` says where they go.

        control: [B or 1, C, h, w], scaled as the latent. All else as in `SanaTransformer.forward`; text keys and values
        are the ControlNet's own. Returns [K, B, N, D].
        """
        lead = self.control.lead
        grid = Grid.of(latent, self.config.patch_size)
        positions = positions or self.config.positions
        x = self.embed_latent(latent, grid, positions)
        bare = Positions(positions.side, None)
        added = self.input(self.embed_latent(control, grid, bare if lead else positions))
        t_emb = self.embed_time(time, guidance)
        if not lead:
            x = x + added
        residuals = {lead - 1: added} if lead else None
        depth = self.config.depth
        _, kept = self.walk(x, t_emb, text, grid, depth, residuals=residuals, keep=range(lead, depth))
        return torch.stack([out(tokens) for out, tokens in zip(self.outputs, kept, strict=True)])


def placed(config: ControlConfig, residuals: Tensor) -> dict[int, Tensor]:
    """Residuals [K, B, N, D] by the blocks of the base to whose outputs they are added."""
    return {config.first + number: residual for number, residual in enumerate(residuals.unbind())}


def copy_base(base: SanaTransformer, copies: int = COPIES) -> ControlNet:
    """Return a ControlNet that begins as the first blocks of a base network, with weights of its own.

    Raises ValueError if the base has too few blocks.
    """
    config = ControlConfig(backbone=replace(base.config, depth=copies))
    if config.mismatch(base.config) is not None:
        raise ValueError(
            f"{copies} blocks can't be copied: there must be one more of them, not {base.config.depth}"
        )
    control = ControlNet(config).to(base.patch.weight)
    taken = {name: weight.clone() for name, weight in _shared(base, copies)}
    control.load_state_dict(control.state_dict() | taken)
    return control


def _shared(base: SanaTransformer, copies: int) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of a base that its copy begins with."""
    past = tuple(f"blocks.{number}." for number in range(copies, base.config.depth))
    for name, weight in base.state_dict().items():
        if not name.startswith(("head.", *past)):
            yield name, weight.detach()
