"""Half precision on CPUs without units for it: weights and activations stay in it, products are computed in float32.

There torch walks through products in bf16 and fp16 in loops: a convolution takes up to sixty times as long as in
float32, which has vector units everywhere. Results are rounded to the half dtype again, so memory is that of half
precision and numbers are at least as good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sanakit.autoencoder import DCAE
from sanakit.transformer import SanaTransformer

_PRODUCTS = {
    F.linear, F.conv2d, torch.matmul, torch.bmm, torch.baddbmm, torch.addmm, torch.mm, Tensor.matmul, Tensor.__matmul__,
    Tensor.bmm,
}  # fmt: skip
_HALVES = (torch.bfloat16, torch.float16)


def widen(module: nn.Module) -> None:
    """From now on `module` computes its products of half precision in float32, in place; for drawing on a CPU."""
    module.forward = _widely(module.forward)
    if isinstance(module, SanaTransformer):
        module.precompute_text = _widely(module.precompute_text)  # type: ignore[method-assign]
    if isinstance(module, DCAE):
        module.decode = _widely(module.decode)  # type: ignore[method-assign]


def _widely(call: Callable[..., Any]) -> Callable[..., Any]:
    def run(*arguments: Any, **named: Any) -> Any:
        with _WideProducts():
            return call(*arguments, **named)

    return run


class _WideProducts(TorchFunctionMode):
    """Calls products with float32 for half precision, and rounds what they return."""

    def __torch_function__(
        self,
        call: Any,
        types: Sequence[type],
        arguments: tuple[Any, ...] = (),
        named: dict[str, Any] | None = None,
    ) -> Any:
        named = named or {}
        if call not in _PRODUCTS:
            return call(*arguments, **named)
        halves = [each for each in (*arguments, *named.values()) if _is_half(each)]
        if not halves:
            return call(*arguments, **named)
        wide = call(*map(_wide, arguments), **{name: _wide(each) for name, each in named.items()})
        return wide.to(halves[0].dtype)


def _is_half(value: object) -> bool:
    return isinstance(value, Tensor) and value.dtype in _HALVES and value.device.type == "cpu"


def _wide(value: Any) -> Any:
    return value.float() if _is_half(value) else value
