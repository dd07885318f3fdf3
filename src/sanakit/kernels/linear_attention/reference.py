"""ReLU linear attention in plain torch: the definition that faster rows must equal.

SANA (arXiv 2410.10629), section 2.2 and equation 2:

    O_n = relu(Q_n) [ sum_j relu(K_j)^T V_j ] / ( relu(Q_n) [ sum_j relu(K_j)^T ] + eps )

The sums run over all tokens with no 1/N and no 1/sqrt(D), so they overflow fp16 and lose digits in bf16: both the
[D, E] state and the two products with it are computed in float32 whatever the inputs are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sanakit.kernels.linear_attention.state import AttentionState
from sanakit.kernels.qk_norm import QKNorm, normalised


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
    norm: QKNorm | None = None,
) -> Tensor:
    """Attend with ReLU features.

    Args:
        query: [B, N, H, D], before the ReLU.
        key: [B, N, H, D], before the ReLU.
        value: [B, N, H, E].
        eps: added to the denominator (1e-15 in diffusers, 1e-8 in the official code).
        angles: [N, D/2] rotary angles. They turn query and key after the ReLU in the numerator only: the denominator
            must stay positive (SANA-Video, arXiv 2509.24695, section 3.1).
        mask: [B, N] bool, True for real tokens; nobody sees the others, whatever they hold.
        state: sums over the tokens before these, which all of these see; these are added to it.
        norm: of query and key over all heads, before the ReLU; None where they come as they are.

    Returns:
        [B, N, H, E] in the dtype of `value`.
    """
    if norm is not None:
        key = key if mask is None else key.masked_fill(~mask[:, :, None, None], 0)
        query, key = normalised(query, norm.query, norm.eps), normalised(key, norm.key, norm.eps)
    # Shapes alone (on "meta") are computed as well, and autocast knows no such device.
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
