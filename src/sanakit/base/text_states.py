"""Token states of prompts with their mask: the value that `text` produces and every transformer reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sanakit.base.errors import SanakitError


@dataclass(frozen=True, eq=False)
class TextStates:
    """Token states of a batch of prompts.

    states: [B, L, C], any floating dtype. mask: [B, L] bool, True if a token is real.
    Raises SanakitError when the shapes do not belong together.
    """

    states: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        if self.states.dim() != 3 or self.mask.shape != self.states.shape[:2]:
            raise SanakitError(
                "text states need [B, L, C] with a mask [B, L], "
                f"not {list(self.states.shape)} and {list(self.mask.shape)}"
            )
        if self.mask.dtype != torch.bool:
            raise SanakitError(f"a text mask must be bool, not {self.mask.dtype}")

    @property
    def batch(self) -> int:
        """Number of prompts B."""
        return int(self.states.shape[0])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> TextStates:
        """Return the same states on `device` and in `dtype`; the mask stays bool."""
        return TextStates(self.states.to(device=device, dtype=dtype), self.mask.to(device=device))

    def repeat(self, n: int) -> TextStates:
        """Return each prompt n times in a row, p0 p0 p1 p1: states and mask alike, [n*B, L, C]."""
        return TextStates(self.states.repeat_interleave(n, dim=0), self.mask.repeat_interleave(n, dim=0))

    def trimmed(self) -> TextStates:
        """Without the columns that no prompt uses; at least one column stays.

        Cross-attention gives masked columns the weight zero, so the result is the same with fewer tokens.
        """
        used = self.mask.any(dim=0)
        if not bool(used.any()):
            used[:1] = True
        return TextStates(self.states[:, used], self.mask[:, used])

    @property
    def single(self) -> Tensor:
        """[B] bool: prompts with one real token. Attention to them needs no weights: softmax over one key is 1."""
        return self.mask.sum(dim=1) == 1

    def padded(self, length: int) -> TextStates:
        """With zeros and a False mask appended on the right up to `length` columns.

        Raises SanakitError when there are more columns than that.
        """
        missing = length - self.states.shape[1]
        if missing < 0:
            raise SanakitError(f"text states of {self.states.shape[1]} tokens can't be padded to {length}")
        if missing == 0:
            return self
        return TextStates(
            functional.pad(self.states, (0, 0, 0, missing)),
            functional.pad(self.mask, (0, missing), value=False),
        )

    @staticmethod
    def join(parts: Sequence[TextStates]) -> TextStates:
        """One batch of several, each padded to the longest. Raises SanakitError for an empty list."""
        if not parts:
            raise SanakitError("no text states to join")
        length = max(part.states.shape[1] for part in parts)
        padded = [part.padded(length) for part in parts]
        return TextStates(
            torch.cat([part.states for part in padded]), torch.cat([part.mask for part in padded])
        )

    def select(self, which: slice) -> TextStates:
        """Return the prompts of a slice of the batch."""
        return TextStates(self.states[which], self.mask[which])
