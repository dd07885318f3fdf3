"""Tokens that were rounded before a product asked for it, as what normalised them left them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class QuantTokens(NamedTuple):
    """int8 values [..., K] and their steps [...] in float32; dtype: of the tokens before, and of products with them."""

    values: Tensor
    steps: Tensor
    dtype: torch.dtype

    @property
    def shape(self) -> torch.Size:
        """[..., K]."""
        return self.values.shape

    def exact(self) -> Tensor:
        """What they stand for, [..., K] in float64."""
        return self.values.double() * self.steps.double()[..., None]
