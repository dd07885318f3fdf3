"""What an optimiser keeps, in bytes."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer


def optimiser_bytes(optimizer: Optimizer) -> int:
    """Bytes of an optimiser's state on this process: what is there now, so after the first step all of it.

    Of tensors that are cut over processes this process's part is counted, and of quantised ones codes and scales.
    """
    return sum(_bytes(kept) for state in optimizer.state.values() for kept in state.values())


def _bytes(kept: Any) -> int:
    if not isinstance(kept, Tensor):
        return 0
    if hasattr(kept, "device_mesh"):
        return _bytes(kept.to_local())  # type: ignore[attr-defined]
    if hasattr(kept, "__tensor_flatten__"):
        parts, _ = kept.__tensor_flatten__()
        return sum(_bytes(getattr(kept, name)) for name in parts)
    return kept.numel() * kept.element_size()
