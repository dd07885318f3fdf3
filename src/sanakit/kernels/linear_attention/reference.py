"""ReLU linear attention in plain torch.

SANA (arXiv 2410.10629), section 2.2 and equation 2:

    O_n = relu(Q_n) [ sum_j relu(K_j)^T V_j ] / ( relu(Q_n) [ sum_j relu(K_j)^T ] + eps )

The sums run over all tokens with no 1/N and no 1/sqrt(D), so they overflow fp16 and lose digits in bf16: both the
[D, E] state and the two products with it are computed in float32 whatever the inputs are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sanakit.kernels.rms_norm.reference import QKNorm, qk_norm


@dataclass(eq=False)
class AttentionState:
    """Sums over all tokens so far, in float32, of one size however many tokens there were; empty at first.

    Handed to `linear_attention` block by block, it makes the block-causal form: every token sees its own block and all
    before it (SANA-Video, arXiv 2509.24695, section 3.2). Gradients flow through it.

    product: [B, H, D, E], of keys times values (turned by rotary angles, if there are any). total: [B, H, D], of keys.
    """

    product: Tensor | None = None
    total: Tensor | None = None

    def extend(self, product: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        """Add the sums of a block, and return those of everything up to and with it."""
        self.product = product if self.product is None else self.product + product
        self.total = total if self.total is None else self.total + total
        return self.product, self.total


def rotate_pairs(x: Tensor, angles: Tensor) -> Tensor:
    """Turn the channel pairs (0, 1), (2, 3), ... of x [B, N, H, D] by `angles` [N, D/2] radians (arXiv 2104.09864)."""
    cos, sin = angles.cos()[:, None, :], angles.sin()[:, None, :]
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


def linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    eps: float = 1e-15,
    angles: Tensor | None = None,
    mask: Tensor | None = None,
    state: AttentionState | None = None,
) -> Tensor:
    """Attend with ReLU features.

    Args:
        query: [B, N, H, D], before the ReLU.
        key: [B, N, H, D], before the ReLU.
        value: [B, N, H, E].
        eps: added to the denominator (1e-15 in diffusers, 1e-8 in the official code).
        angles: [N, D/2] rotary angles. They turn query and key after the ReLU in the numerator only: the denominator
            must stay positive (SANA-Video, arXiv 2509.24695, section 3.1).
        mask: [B, N] bool, True for real tokens; no query sees the others, whatever they hold.
        state: sums over the tokens before these, which all of these see; these are added to it.

    Returns:
        [B, N, H, E] in the dtype of `value`.
    """
    # On "meta" only shapes are computed, and autocast knows no such device.
    with torch.autocast("cpu" if value.is_meta else value.device.type, enabled=False):
        q, k, v = query.relu().float(), key.relu().float(), value.float()
        if mask is not None:
            k, v = (x.masked_fill(~mask[:, :, None, None], 0) for x in (k, v))
        plain, sums = q, k.sum(dim=1)  # the denominator's, [B, N, H, D] and [B, H, D]
        if angles is not None:
            q, k = rotate_pairs(q, angles), rotate_pairs(k, angles)
        product = torch.einsum("bnhd,bnhe->bhde", k, v)
        if state is not None:
            product, sums = state.extend(product, sums)
        total = torch.einsum("bnhd,bhd->bnh", plain, sums).unsqueeze(-1)
        return (torch.einsum("bnhd,bhde->bnhe", q, product) / (total + eps)).to(value.dtype)


def qk_norm_linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    eps: float,
    angles: Tensor | None,
    mask: Tensor | None,
    state: AttentionState | None,
    norm: QKNorm,
) -> Tensor:
    """As `linear_attention`, with query and key normalised over all heads before the ReLU (`qk_norm`)."""
    query, key = qk_norm(query, norm.query, norm.eps), qk_norm(hide(key, mask), norm.key, norm.eps)
    return linear_attention(query, key, value, eps, angles, mask, state)


def hide(key: Tensor, mask: Tensor | None) -> Tensor:
    """Zero the keys [B, N, H, D] of hidden tokens: whatever they hold, NaN as well, must not enter their norm."""
    return key if mask is None else key.masked_fill(~mask[:, :, None, None], 0)
