"""Low-rank adapters beside the layers of a built model: LoRA (arXiv 2106.09685), rsLoRA and DoRA.

The weight W of a layer changes by scale * up @ down, and by nothing that is as large as W. A fused layer holds several
published matrices one below the other (q, k, v), and each has a pair of its own.

Letters: O outputs of a layer, K its inputs (for a convolution all weights of one output), G published matrices in its
weight that are adapted, o = O / of outputs of each, r rank.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sanakit.kernels import QuantTokens


@dataclass(frozen=True, kw_only=True, eq=False)
class LowRank:
    """What one adapter changes in the weight of one layer.

    Attributes:
        down: [G, r, K].
        up: [G, o, r].
        scale: of the product: alpha / r, with rsLoRA alpha / sqrt(r) (arXiv 2312.03732, equation 7).
        magnitude: [G, o], lengths of the rows of the changed weight (DoRA, arXiv 2402.09353, equation 5); None leaves
            them as they come.
        groups: which of the `of` equal parts of the layer's outputs are adapted, in the order of G.
        of: the number of published matrices in the layer.

    Raises ValueError if the shapes contradict each other.
    """

    down: Tensor
    up: Tensor
    scale: float = 1.0
    magnitude: Tensor | None = None
    groups: tuple[int, ...] = (0,)
    of: int = 1

    def __post_init__(self) -> None:
        count = len(self.groups)
        fits = (
            self.down.dim() == self.up.dim() == 3
            and len(self.down) == len(self.up) == count
            and self.down.shape[1] == self.up.shape[2] > 0
            and (self.magnitude is None or self.magnitude.shape == self.up.shape[:2])
            and len(set(self.groups)) == count
            and all(0 <= group < self.of for group in self.groups)
        )
        if not fits:
            shapes = f"down {list(self.down.shape)}, up {list(self.up.shape)}"
            raise ValueError(f"no low-rank change of {count} of {self.of} matrices: {shapes}.")

    @property
    def rank(self) -> int:
        """The inner width r."""
        return self.down.shape[1]

    @property
    def outputs(self) -> int:
        """The outputs O of the layer."""
        return self.up.shape[1] * self.of

    @property
    def inputs(self) -> int:
        """The inputs K of the layer."""
        return self.down.shape[2]

    def scaled(self, weight: float) -> LowRank:
        """Return the same adapter at a weight: 0 changes nothing, apart from magnitudes, 1 is as it was."""
        return replace(self, scale=self.scale * weight)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> LowRank:
        """Return the same tensors elsewhere, or in another dtype."""
        magnitude = None if self.magnitude is None else self.magnitude.to(device, dtype)
        return replace(
            self, down=self.down.to(device, dtype), up=self.up.to(device, dtype), magnitude=magnitude
        )

    def rows(self) -> Iterable[tuple[int, slice]]:
        """(position in G, its outputs) of each adapted matrix."""
        width = self.up.shape[1]
        return ((at, slice(group * width, (group + 1) * width)) for at, group in enumerate(self.groups))


def change(low: LowRank, weight: Tensor) -> Tensor:
    """Return what an adapter adds to a weight, float32, in its shape. The reference of all that follows.

    weight: [O, ...] with K numbers per output. With magnitudes m it is m (W + d) / |W + d| - W, d = scale * up @ down.
    """
    rows = weight.detach().float().flatten(1)  # [O, K]
    added = torch.zeros_like(rows)
    products = low.scale * (low.up.float() @ low.down.float())  # [G, o, K]
    for at, where in low.rows():
        part = products[at]
        if low.magnitude is not None:
            part = _gain(low.magnitude[at], rows[where] + part) * (rows[where] + part) - rows[where]
        added = added.index_copy(0, torch.arange(len(rows), device=rows.device)[where], part)
    return added.reshape(weight.shape)


def merged(weight: Tensor, lows: Iterable[LowRank]) -> Tensor:
    """Return the weight with several adapters in it, summed in float32, in the weight's dtype."""
    total = weight.float()
    for low in lows:
        total = total + change(low, weight)
    return total.to(weight.dtype)


def _gain(magnitude: Tensor, rows: Tensor) -> Tensor:
    """[o] and [o, K] -> [o, 1]: what brings rows to their magnitudes.

    Their length counts as a constant for gradients (arXiv 2402.09353, section 4.3). Rows of zeros stay so.
    """
    length = rows.detach().norm(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
    return (magnitude.float() / length).unsqueeze(1)


class Adapter(nn.Module):
    """One adapter of one layer, with its tensors as parameters.

    weight: a factor on its scale, for mixing adapters. dropout: of the inputs, while training (linear layers only).
    """

    def __init__(self, low: LowRank, *, weight: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__()
        self.down, self.up = nn.Parameter(low.down), nn.Parameter(low.up)
        self.magnitude = None if low.magnitude is None else nn.Parameter(low.magnitude)
        self.scale, self.groups, self.of = low.scale, low.groups, low.of
        self.weight, self.dropout = weight, dropout

    def value(self) -> LowRank:
        """Return the adapter as it is, without the factor `weight`."""
        return LowRank(
            down=self.down,
            up=self.up,
            scale=self.scale,
            magnitude=self.magnitude,
            groups=self.groups,
            of=self.of,
        )

    def active(self) -> LowRank:
        """Return the adapter with the factor `weight`, as it works."""
        return self.value().scaled(self.weight)

    def spread(self) -> tuple[Tensor, Tensor]:
        """(down [G * r, K], up [O, G * r]): all its matrices as one pair, with zeros where none is adapted."""
        rank, width = self.down.shape[1], self.up.shape[1]
        down = self.down.flatten(0, 1)
        if self.of == 1:
            return down, self.up[0]
        parts = [self.up.new_zeros(width, len(down)) for _ in range(self.of)]
        for at, group in enumerate(self.groups):
            parts[group] = F.pad(self.up[at], (at * rank, len(down) - (at + 1) * rank))
        return down, torch.cat(parts)


class AdaptedLayer(nn.Module):
    """A layer with adapters beside it, by name. The layer itself is called as it is, and may be quantised or packed."""

    base: Any

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.adapters = nn.ModuleDict()
        self.enabled = True

    def each(self) -> list[Adapter]:
        """Return the adapters in the order in which they came."""
        return [adapter for adapter in self.adapters.values() if isinstance(adapter, Adapter)]

    def working(self) -> list[Adapter]:
        """Return the adapters that change what the layer computes: none while they are disabled."""
        return self.each() if self.enabled else []

    @property
    def reads_weight(self) -> bool:
        """Whether the forward needs the weight itself, so that it must not be packed: for magnitudes."""
        return any(adapter.magnitude is not None for adapter in self.each())

    @property
    def plain_weight(self) -> Tensor:
        """The weight of the layer without adapters, as numbers: a quantised one is multiplied by its scales.

        Raises ValueError if the layer has packed it away.
        """
        weight = getattr(self.base, "weight", None)
        if not isinstance(weight, Tensor):
            raise ValueError(f"{type(self.base).__name__} does not keep a weight: adapt the model before it.")
        scales = getattr(self.base, "scales", None)
        return weight if scales is None else weight.float() * scales[:, None]


class AdaptedLinear(AdaptedLayer):
    """base(x) + scale * up(down(x)), of every adapter."""

    @property
    def in_features(self) -> int:
        """Number of inputs K."""
        inputs = getattr(self.base, "in_features", None)
        return int(self.plain_weight.shape[1] if inputs is None else inputs)

    @property
    def out_features(self) -> int:
        """Number of outputs O."""
        return int(self.base.out_features)

    @property
    def weight(self) -> Tensor:
        """The layer's own, without adapters: for its dtype and device."""
        weight: Tensor = self.base.weight
        return weight

    def forward(self, x: Tensor | QuantTokens) -> Tensor:
        """[..., K], quantised if the layer takes that -> [..., O] in the dtype of the layer's output."""
        plain: Tensor = self.base(x)
        out, x = plain, x.exact().to(x.dtype) if isinstance(x, QuantTokens) else x
        for adapter in self.working():
            if adapter.weight or adapter.magnitude is not None:
                out = self._add(out, plain, x, adapter)
        return out

    def _add(self, out: Tensor, plain: Tensor, x: Tensor, adapter: Adapter) -> Tensor:
        """`out` plus what an adapter adds to the layer's `plain` output; small weights take the dtype of `x`."""
        down, up = (part.to(x.dtype) for part in adapter.spread())
        low = F.linear(F.dropout(x, adapter.dropout, adapter.training and adapter.dropout > 0), down)
        scale = adapter.scale * adapter.weight
        if adapter.magnitude is not None:
            gain = self._gains(adapter).to(x.dtype)  # [O], 1 where nothing is adapted
            bias = self.base.bias
            out = out + (gain - 1) * (plain if bias is None else plain - bias)
            up = up * gain[:, None]
        rows, low = out.flatten(0, -2), low.flatten(0, -2)
        # Without gradients nobody else holds the output of the layer: a second one would cost as much as the product.
        add = rows.addmm if torch.is_grad_enabled() or self.reads_weight else rows.addmm_
        return add(low, up.t(), alpha=scale).reshape(out.shape)

    def _gains(self, adapter: Adapter) -> Tensor:
        """[O], what brings the rows of the changed weight to their magnitudes."""
        low, rows = adapter.active(), self.plain_weight.detach().float()
        assert low.magnitude is not None
        gains = list(torch.ones(len(rows), device=rows.device).chunk(low.of))
        for at, where in low.rows():
            changed = rows[where] + low.scale * (low.up[at].float() @ low.down[at].float())
            gains[low.groups[at]] = _gain(low.magnitude[at], changed).squeeze(1)
        return torch.cat(gains)


class AdaptedConv(AdaptedLayer):
    """A convolution whose weight [O, I, k, k] is changed, K = I * k * k: the change is small beside its work.

    Also for depthwise ones (I = 1), whose change no convolution of rank r could make.
    """

    @property
    def weight(self) -> Tensor:
        """[O, I, k, k] with what the adapters add."""
        return merged(self.base.weight, [adapter.active() for adapter in self.working()])

    @property
    def bias(self) -> Tensor | None:
        """[O], the layer's own."""
        bias: Tensor | None = self.base.bias
        return bias

    def forward(self, x: Tensor) -> Tensor:
        """[B, I, h, w] -> [B, O, h', w']."""
        base = self.base
        return F.conv2d(x, self.weight, self.bias, base.stride, base.padding, base.dilation, base.groups)
