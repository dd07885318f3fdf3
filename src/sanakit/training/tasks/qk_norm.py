"""qk-norm for a network that was trained without: the weights of the norms that change its attentions least.

RMSNorm(q) w divides every token by its own size, which typical weights put back: of all w the one that is nearest to
the query, channel by channel, over the tokens of some pictures, is

    w = sum(q^2 / r) / sum(q^2 / r^2),      r = rms of the token's q over the width

Weights of 1 would set the logits of the cross-attention to another scale. The linear self-attention doesn't see the
size of a query at all, which its denominator cancels, and of keys only how they differ among each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from torch import Tensor, nn

from sanakit.layers.block import LinearBlock
from sanakit.transformer import SanaTransformer

__all__ = ["NormWeights"]

_EPS = 1e-5


class NormWeights:
    """Watches queries and keys of a network without qk-norm, and solves for the weights of its norms.

    seen: which text tokens count, [B, L] bool, of the pass that runs; see `real_tokens`.
    """

    def __init__(self, network: SanaTransformer) -> None:
        self.network = network
        self.seen: Tensor | None = None
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Add up every forward pass inside."""
        handles = [
            handle
            for number, block in enumerate(self.network.blocks)
            for handle in self._watch(f"blocks.{number}", cast(LinearBlock, block))
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def weights(self) -> dict[str, Tensor]:
        """Name -> weight [D] of every norm, float32."""
        return {name: (near / size.clamp_min(1e-30)).float() for name, (near, size) in self._sums.items()}

    def _watch(self, name: str, block: LinearBlock) -> Iterator[Any]:
        attention, cross = cast(Any, block.attention), block.cross
        rows = ((attention.qkv, f"{name}.attention", 3), (cross.q, f"{name}.cross", 1))
        for layer, prefix, parts in rows:
            yield layer.register_forward_hook(self._hook(prefix, parts))
        yield cross.kv.register_forward_hook(self._keys(f"{name}.cross.norm_k.weight"))

    def _hook(self, prefix: str, parts: int) -> Callable[[nn.Module, Any, Tensor], None]:
        """Query and, of three parts, key of image tokens."""

        def hook(layer: nn.Module, inputs: Any, output: Tensor) -> None:
            for name, part in zip(("norm_q", "norm_k"), output.chunk(parts, dim=-1), strict=False):
                self._add(f"{prefix}.{name}.weight", part.flatten(0, 1))

        return hook

    def _keys(self, name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(layer: nn.Module, inputs: Any, output: Tensor) -> None:
            key = output.chunk(2, dim=-1)[0]
            self._add(name, key.flatten(0, 1) if self.seen is None else key[self.seen])

        return hook

    def _add(self, name: str, tokens: Tensor) -> None:
        """tokens: [N, D]."""
        square = tokens.double().square()
        size = (square.mean(dim=-1, keepdim=True) + _EPS).sqrt()
        found = (square / size).sum(dim=0), (square / size.square()).sum(dim=0)
        before = self._sums.get(name)
        self._sums[name] = found if before is None else (before[0] + found[0], before[1] + found[1])


def real_tokens(mask: Tensor) -> Tensor:
    """Of a mask [B, L], the tokens whose keys matter: attention to a single token is 1, whatever its key is."""
    several = mask.sum(dim=1, keepdim=True) > 1
    return mask & several if bool(several.any()) else mask
