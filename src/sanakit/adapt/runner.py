"""Parts of a model that run under a context: without Triton kernels, or with products in another precision.

Half precision is widened on CPUs without units for it. There torch computes products in bf16 and fp16 in loops: a
convolution takes up to sixty times as long as in float32, which has vector units everywhere. Weights and activations
stay in half precision, so memory is that of half precision, and numbers are at least as good.

Float32 on a GPU needs a word, too: cuDNN rounds the operands of convolutions to TF32, ten bits of a mantissa, unless it
is told otherwise, and a picture can turn out another one for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sanakit.kernels.choice import avoid

_PRODUCTS = {
    F.linear, F.conv2d, torch.matmul, torch.bmm, torch.baddbmm, torch.addmm, torch.mm, Tensor.matmul, Tensor.__matmul__,
    Tensor.bmm,
}  # fmt: skip
_HALVES = (torch.bfloat16, torch.float16)


class Runner(nn.Module):
    """A part of a model that runs in another way, and is called as the part is.

    Subclasses change how the calls run: all of them in `run`, or `forward`, a transformer's `precompute_text` or an
    autoencoder's `encode` or `decode` alone.
    """

    part: Any

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    @property
    def config(self) -> Any:
        """The configuration of the part."""
        return self.part.config

    def run(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a call of the part."""
        return call(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the part's `forward`."""
        return self.run(self.part, *args, **kwargs)

    def precompute_text(self, *args: Any, **kwargs: Any) -> Any:
        """As a transformer's `precompute_text`."""
        return self.run(self.part.precompute_text, *args, **kwargs)

    def encode(self, pixels: Tensor) -> Any:
        """As an autoencoder's `encode`."""
        return self.run(self.part.encode, pixels)

    def decode(self, latent: Tensor) -> Any:
        """As an autoencoder's `decode`."""
        return self.run(self.part.decode, latent)


class ContextRunner(Runner):
    """A part that runs inside a context, which is entered at every call."""

    def __init__(self, part: nn.Module, context: Callable[[], AbstractContextManager[Any]]) -> None:
        super().__init__(part)
        self.context = context

    def run(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a call of the part inside the context."""
        with self.context():
            return call(*args, **kwargs)


def plain(module: nn.Module) -> Runner:
    """Run `module` without the table's Triton rows, whatever else in the process uses them."""
    return ContextRunner(module, partial(avoid, "triton"))


def widen(module: nn.Module) -> Runner:
    """Compute the half-precision products of `module` in float32; for inference on a CPU."""
    return ContextRunner(module, _WideProducts)


def exact(module: nn.Module) -> Runner:
    """Run the convolutions of `module` in all of float32 on a GPU, as torch runs its products."""
    return ContextRunner(module, _full_float32)


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the network inside of runners."""
    while isinstance(module, Runner):
        module = module.part
    return module


@contextmanager
def _full_float32() -> Iterator[None]:
    conv = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before, conv.fp32_precision = conv.fp32_precision, "ieee"
    try:
        yield
    finally:
        conv.fp32_precision = before


class _WideProducts(TorchFunctionMode):
    """Calls products with float32 for half precision, and rounds what they return."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _PRODUCTS:
            return func(*args, **kwargs)
        halves = [each for each in (*args, *kwargs.values()) if _is_half(each)]
        if not halves:
            return func(*args, **kwargs)
        wide = func(*map(_wide, args), **{name: _wide(each) for name, each in kwargs.items()})
        return wide.to(halves[0].dtype)


def _is_half(value: object) -> bool:
    return isinstance(value, Tensor) and value.dtype in _HALVES and value.device.type == "cpu"


def _wide(value: Any) -> Any:
    return value.float() if _is_half(value) else value
