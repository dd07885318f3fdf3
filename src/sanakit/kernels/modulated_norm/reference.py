"""LayerNorm and modulation in plain torch: the definition that faster rows must equal.

DiT (arXiv 2212.09748), section 3.2 (adaLN); SANA shares one modulation network between blocks (AdaLN-single).
"""

from __future__ import annotations

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
