"""LayerNorm and modulation in plain torch.

DiT (arXiv 2212.09748), section 3.2 (adaLN); SANA shares one modulation network between blocks (AdaLN-single).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Tensor:
    """Normalise over channels, then x * (1 + scale) + shift.

    Args:
        x: [B, N, D].
        shift: [B, 1, D], broadcast over tokens.
        scale: [B, 1, D].
        eps: of the LayerNorm.

    Returns:
        [B, N, D] in the dtype of `x`.
    """
    return F.layer_norm(x, x.shape[-1:], eps=eps).to(x.dtype) * (1 + scale) + shift


def add_norm_modulate(
    x: Tensor, branch: Tensor | None, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Add the output of a branch to the residual stream, and normalise for the next branch.

    Args:
        x: [B, N, D].
        branch: [B, N, D], or None for no sum.
        gate: [B, 1, D], on the branch, or None.
        shift: [B, 1, D].
        scale: [B, 1, D].
        eps: of the LayerNorm.

    Returns:
        The sum x + gate * branch and its modulated norm, [B, N, D] each.
    """
    total = add(x, branch, gate)
    return total, modulated_norm(total, shift, scale, eps)


def add_norm_modulate_quant(
    x: Tensor, branch: Tensor | None, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """As `add_norm_modulate`, before an int8 product.

    A row may return the norm as `QuantTokens`, quantised on its way; otherwise the product quantises it, to the same
    values (`quantise_tokens`).
    """
    return add_norm_modulate(x, branch, gate, shift, scale, eps)


def add(x: Tensor, branch: Tensor | None, gate: Tensor | None) -> Tensor:
    """Return x + gate * branch."""
    if branch is None:
        return x
    return x + branch if gate is None else torch.addcmul(x, gate, branch)
