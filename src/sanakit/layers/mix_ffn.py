"""The Mix-FFN of SANA: 1x1, SiLU, depthwise 3x3, gate, 1x1. It sees neighbours, so no positions are needed."""

from __future__ import annotations

from torch import Tensor, nn

from sanakit.base.sizes import Grid
from sanakit.kernels import QuantTokens, gated_depthwise


class MixFFN(nn.Module):
    """Gated convolutional feed-forward (arXiv 2410.10629, section 2.2). The last projection has no bias."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        hidden = int(width * ratio)
        self.expand = nn.Linear(width, 2 * hidden)
        self.depthwise = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden)
        self.project = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor | QuantTokens, grid: Grid) -> Tensor:
        """[B, N, D], rounded where `expand` takes that -> [B, N, D]; row-major over (frames, height, width)."""
        hidden = self.expand(x).reshape(
            -1, grid.height, grid.width, self.expand.out_features
        )  # [B*F, h, w, 2F]
        mixed = gated_depthwise(hidden.permute(0, 3, 1, 2), self.depthwise.weight, self.depthwise.bias)
        out: Tensor = self.project(mixed.permute(0, 2, 3, 1).reshape(*x.shape[:2], -1))
        return out
