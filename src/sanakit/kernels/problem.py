"""What an implementation of an operator is asked to do, as a value."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Problem:
    """What an implementation is asked to do.

    op: name of the operator. device: its type ("cpu", "cuda", "mps"). dtype: of the large inputs.
    facts: what else a row may ask about, such as (("tokens", 1024), ("head_dim", 32)).
    """

    op: str
    device: str
    dtype: torch.dtype
    facts: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, op: str, tensor: Tensor, **facts: int) -> Problem:
        """The problem of running `op` on `tensor`."""
        return cls(op, tensor.device.type, tensor.dtype, tuple(sorted(facts.items())))

    def fact(self, name: str) -> int | None:
        """A fact by its name, None when nobody stated it."""
        return dict(self.facts).get(name)
