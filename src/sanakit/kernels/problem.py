"""The problem that an implementation of an operator is asked to solve, as a value, and the facts that it states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad


class Like(Protocol):
    """A tensor, or anything else that has a device and a dtype."""

    @property
    def device(self) -> torch.device:
        """Where it is."""

    @property
    def dtype(self) -> torch.dtype:
        """Of its values."""


@dataclass(frozen=True)
class Problem:
    """What an implementation is asked to do.

    op: name of the operator. device: its type ("cpu", "cuda", "mps"). dtype: of the large inputs. facts: what else a
    row may ask about, such as (("rotary", 0), ("width", 32)). Three mean the same for every operator:
        `training` (a gradient will be asked for), `tangent` (inside forward-mode differentiation) and `compiling`
        (torch.compile traces the call).
    """

    op: str
    device: str
    dtype: torch.dtype
    facts: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, op: str, like: Like, **facts: int) -> Problem:
        """Return the problem of running `op` on a tensor, with the fact `tangent` if it applies now."""
        return cls(op, like.device.type, like.dtype, stated(facts))

    def fact(self, name: str) -> int | None:
        """Return a fact by its name, None if nobody stated it."""
        return dict(self.facts).get(name)


def stated(facts: dict[str, int]) -> tuple[tuple[str, int], ...]:
    """Return facts in the form of a problem, with `tangent` inside forward-mode differentiation."""
    if takes_tangents():
        facts = {**facts, "tangent": 1}
    return tuple(sorted(facts.items()))


def takes_tangents() -> bool:
    """Return whether forward-mode differentiation is on: `torch.func.jvp`, `jacfwd` or `forward_ad.dual_level`.

    Every operator called there must carry tangents, even if its inputs happen to have none: asking each tensor would
    cost a call into torch per tensor and fail below nested transforms. Outside, the level is -1.
    """
    return forward_ad._current_level >= 0


def needs_grad(*tensors: Tensor | None) -> int:
    """Return whether a gradient will be asked for, as the fact `training`."""
    return int(torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors))
