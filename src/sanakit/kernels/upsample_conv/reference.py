"""Nearest x2, a 3x3 convolution and DC-AE's shortcut in plain torch: the definition that faster rows must equal.

DC-AE (arXiv 2410.10733), section 3.1: the shortcut moves channels into space, repeating them where there are too few.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def upsample_conv(x: Tensor, weight: Tensor, bias: Tensor | None, shortcut: bool) -> Tensor:
    """Double the resolution.

    Args:
        x: [B, C, h, w].
        weight: [D, C, 3, 3]; with a shortcut 4 D is a multiple of C.
        bias: [D] or None.
        shortcut: whether to add the channels of x, moved into space.

    Returns:
        [B, D, 2h, 2w].
    """
    y = F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)
    if not shortcut:
        return y
    return y + F.pixel_shuffle(x.repeat_interleave(4 * len(weight) // x.shape[1], dim=1), 2)
