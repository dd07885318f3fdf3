"""What is timed: the shapes of a model, a size, a dtype and a device, with the inputs that everyone gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from sanakit.base.precision import CPU
from sanakit.base.text_states import TextStates
from sanakit.pipeline.shapes import Shapes

WORDS = 40
"""Real tokens of the prompt: two or three sentences."""
PADDED = 300
INSTRUCTION = 240
"""Tokens of the instruction before the prompt, about."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is timed: shapes, size in pixels, the dtype of the run and the device.

    shared: text encoders that engines have in common, by dtype; cleared after a stage, for they are large.
    """

    shapes: Shapes
    width: int
    height: int
    dtype: torch.dtype
    device: torch.device = CPU
    shared: dict[torch.dtype, nn.Module] = field(default_factory=dict)

    @property
    def latent(self) -> tuple[int, int, int]:
        """[C, h, w]."""
        ratio = self.shapes.autoencoder.ratio
        return self.shapes.transformer.latent_channels, self.height // ratio, self.width // ratio

    def noise(self, batch: int, dtype: torch.dtype) -> Tensor:
        """[B, C, h, w]."""
        generator = torch.Generator().manual_seed(1)
        one = torch.randn(1, *self.latent, generator=generator)
        return one.expand(batch, -1, -1, -1).to(self.device, dtype)

    def words(self, dtype: torch.dtype, length: int) -> TextStates:
        """A null prompt of one token and a prompt of `WORDS`, padded to `length` of at most `PADDED`."""
        generator = torch.Generator().manual_seed(2)
        states = torch.randn(2, PADDED, self.shapes.transformer.text_width, generator=generator).to(dtype)
        mask = torch.arange(length) < torch.tensor([[1], [WORDS]])
        return TextStates(states[:, :length], mask).to(device=self.device)


@dataclass(frozen=True, kw_only=True)
class Work:
    """Something to time. size: bytes of the weights. dtype: what it computes in, by name; None for the run's."""

    run: Callable[[], Tensor]
    size: int
    dtype: str | None = None


def tokens(real: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask [1, length] with `real` tokens."""
    places = torch.arange(length, device=device)[None]
    return places % 200 + 2, (places < real).long()


def weight_bytes(model: nn.Module) -> int:
    """Bytes of a model's weights."""
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
