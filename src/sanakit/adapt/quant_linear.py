"""What linear layers with rounded weights have in common, whatever they are rounded to."""

from __future__ import annotations

from torch import Tensor, nn

from sanakit.kernels.linear import Act


class QuantLinear(nn.Module):
    """A linear layer with rounded weights [O, K] and a step per output; activations are rounded on the way in.

    act: "silu" or "none", on the way out.
    """

    weight: Tensor
    steps: Tensor

    def __init__(
        self, weight: Tensor, steps: Tensor, bias: nn.Parameter | Tensor | None, act: Act = "none"
    ) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("steps", steps)
        self.bias, self.act = bias, act

    @property
    def out_features(self) -> int:
        """Number of outputs O."""
        return len(self.weight)
