"""What an implementation of an operator is asked to do, as a value."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import forward_ad


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
        """The problem of running `op` on `tensor`, with the fact `tangent` inside forward-mode differentiation."""
        return cls(op, tensor.device.type, tensor.dtype, stated(facts))

    def fact(self, name: str) -> int | None:
        """A fact by its name, None when nobody stated it."""
        return dict(self.facts).get(name)


def stated(facts: dict[str, int]) -> tuple[tuple[str, int], ...]:
    """Return facts in the form of a problem, with `tangent` inside forward-mode differentiation."""
    if takes_tangents():
        facts = {**facts, "tangent": 1}
    return tuple(sorted(facts.items()))


def takes_tangents() -> bool:
    """Return whether forward-mode differentiation is on: `torch.func.jvp`, `jacfwd` or `forward_ad.dual_level`.

    Every operator called there must carry tangents, also one whose inputs happen to have none: asking each tensor
    would cost a call into torch per tensor and fail below nested transforms. Outside, the level is -1.
    """
    return forward_ad._current_level >= 0
