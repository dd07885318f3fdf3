"""Edits of a built network for training: what is kept for the backward pass, and how attention is computed.

Each replaces blocks of a list by wrappers. Wrappers add a level to the names of parameters; `named_weights` and
`bare_name` give the names of the bare network, under which checkpoints and averages keep them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

_WRAPPED = "_wrapped"


class Wrapper(nn.Module):
    """A block whose call something is done around; its other attributes are those of the block."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self._wrapped = block

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == _WRAPPED:
                raise
            return getattr(self._wrapped, name)


class Recomputed(Wrapper):
    """Forgets the activations of its block, and computes them again in the backward pass."""

    def forward(self, *args: Any, **named: Any) -> Any:
        """As the block."""
        return checkpoint(self._wrapped, *args, use_reentrant=False, **named)


class MathAttention(Wrapper):
    """Computes softmax attention by plain matrix products."""

    def forward(self, *args: Any, **named: Any) -> Any:
        """As the block."""
        with sdpa_kernel(SDPBackend.MATH):
            return self._wrapped(*args, **named)


def edit_blocks(blocks: nn.ModuleList, device: torch.device, *, every: int, compiled: bool) -> None:
    """Edit the blocks of a network that a run trains, or passes gradients through, in place.

    every: as of `recompute`. compiled: each block goes through torch.compile, as it then is.
    """
    if device.type == "cpu":
        attend_by_products(blocks)
    recompute(blocks, every)
    if compiled:
        for block in blocks:
            block.compile()


def recompute(blocks: nn.ModuleList, every: int) -> int:
    """Activation checkpointing, in place, of all but every n-th block; 1 wraps all blocks, 0 none.

    It takes less memory for a third more arithmetic. Returns how many blocks are recomputed. Call it after
    `attend_by_products`, whose choice must hold in the second computation as well.
    """
    if every < 1:
        return 0
    chosen = [number for number in range(len(blocks)) if every == 1 or number % every]
    for number in chosen:
        blocks[number] = Recomputed(blocks[number])
    return len(chosen)


def attend_by_products(blocks: nn.ModuleList) -> None:
    """Let the softmax attention of blocks use plain matrix products, in place.

    On a CPU torch's flash attention takes a third of a training step in its backward pass, plain products a tenth.
    """
    for number, block in enumerate(blocks):
        blocks[number] = MathAttention(block)


def bare_name(name: str) -> str:
    """Return the name that a parameter or buffer has without wrappers."""
    return name.replace(f"{_WRAPPED}.", "")


def named_weights(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters of a model by their names without wrappers."""
    return ((bare_name(name), parameter) for name, parameter in model.named_parameters())
