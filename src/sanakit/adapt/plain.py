"""Plain torch where it is asked for: a model that takes no Triton kernel, whatever others in the process do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from sanakit.autoencoder import DCAE
from sanakit.kernels.choice import avoid
from sanakit.transformer import SanaTransformer


def keep_plain(module: nn.Module) -> None:
    """From now on `module` runs without the table's Triton rows, in place."""
    if isinstance(module, SanaTransformer):
        module.forward = _plainly(module.forward)  # type: ignore[method-assign]
        module.precompute_text = _plainly(module.precompute_text)  # type: ignore[method-assign]
    if isinstance(module, DCAE):
        module.decode = _plainly(module.decode)  # type: ignore[method-assign]


def _plainly(call: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any, **named: Any) -> Any:
        with avoid("triton"):
            return call(*arguments, **named)

    return run
