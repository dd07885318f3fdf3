"""Edits of a built network for training: what is kept for the backward pass, and how attention is computed.

All are made in place, block by block, and leave the names of parameters alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint


def recompute(blocks: Sequence[nn.Module], every: int) -> int:
    """Activation checkpointing: forget the activations of all but every n-th block; 1 forgets all, 0 none.

    They are computed again in the backward pass: less memory for a third more arithmetic. Returns how many blocks
    are recomputed. To be called after `attend_by_products`, whose choice must hold in the second computation as well.
    """
    if every < 1:
        return 0
    chosen = [block for number, block in enumerate(blocks) if every == 1 or number % every]
    for block in chosen:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    return len(chosen)


def attend_by_products(blocks: Sequence[nn.Module]) -> None:
    """Softmax attention as plain matrix products.

    On a CPU torch's flash attention takes a third of a training step in its backward pass, plain products a tenth.
    """
    for block in blocks:
        block.forward = partial(_by_products, block.forward)


def _by_products(forward: Callable[..., Any], *args: Any, **named: Any) -> Any:
    with sdpa_kernel(SDPBackend.MATH):
        return forward(*args, **named)
