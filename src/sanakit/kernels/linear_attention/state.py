"""What linear attention keeps of the tokens behind it: two sums, of one size however many tokens there were."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(eq=False)
class AttentionState:
    """Sums over all tokens so far, in float32; empty at first.

    Handed to `linear_attention` block by block, it makes the block-causal form: every token sees its own block and all
    before it (SANA-Video, arXiv 2509.24695, section 3.2). Gradients flow through it.

    product: [B, H, D, E], of keys times values (turned, where there are angles). total: [B, H, D], of keys.
    """

    product: Tensor | None = None
    total: Tensor | None = None

    def extend(self, product: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        """Add the sums of a block, and give those of everything up to and with it."""
        self.product = product if self.product is None else self.product + product
        self.total = total if self.total is None else self.total + total
        return self.product, self.total
