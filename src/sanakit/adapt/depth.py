"""A transformer with more or fewer blocks, as weights: SANA-1.5's growth and pruning (arXiv 2501.18427, 3.1 and 3.3).

A plan names the origin of every block of the new network: a block of the old one, or none for a fresh one. A silent
block adds nothing to its tokens yet, for the projections at the end of its three parts are zero; so a network that
grows by silent blocks computes what it computed before, and training begins there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sanakit.base.errors import RequestError
from sanakit.transformer import SanaTransformer, TransformerConfig

_LAST = (
    "attention.out.weight",
    "attention.out.bias",
    "cross.out.weight",
    "cross.out.bias",
    "ffn.project.weight",
)
"""Projections that add to the tokens; the Mix-FFN's has no bias."""

_ZERO = (*_LAST, "cross.q.bias", "cross.kv.bias")
_WIDE = ("ffn.depthwise.weight", "ffn.depthwise.bias")
_STD, _WIDE_STD = 0.02, 0.2
"""Deviations of fresh weights, as published: of all others, and of the depthwise convolution."""


@dataclass(frozen=True)
class BlockOrigin:
    """Where a block of the new network comes from.

    block: number of the old one; None for fresh weights. silent: it passes its tokens on at first.
    """

    block: int | None
    silent: bool = False


DepthPlan = tuple[BlockOrigin, ...]


def _partial(kept: int, depth: int) -> DepthPlan:
    """Return all that was kept, then fresh blocks: partial preservation, the published choice."""
    return tuple(BlockOrigin(n) if n < kept else BlockOrigin(None, silent=True) for n in range(depth))


def _cyclic(kept: int, depth: int) -> DepthPlan:
    """Return the whole stack again and again: block n repeats block n mod K."""
    return tuple(BlockOrigin(n % kept) for n in range(depth))


def _expanded(kept: int, depth: int) -> DepthPlan:
    """Return every block several times in a row."""
    return tuple(BlockOrigin(n * kept // depth) for n in range(depth))


def _progressive(kept: int, depth: int) -> DepthPlan:
    """Return every block followed by silent copies of it (LLaMA Pro, arXiv 2401.02415, section 3.2)."""
    plan = _expanded(kept, depth)
    repeats = [n > 0 and plan[n].block == plan[n - 1].block for n in range(depth)]
    return tuple(replace(origin, silent=again) for origin, again in zip(plan, repeats, strict=True))


GROWTHS: dict[str, Callable[[int, int], DepthPlan]] = {
    "partial": _partial,
    "cyclic": _cyclic,
    "block-expand": _expanded,
    "progressive": _progressive,
}
"""Name -> (blocks kept, new depth) -> plan. Those of "partial" and "progressive" compute what the kept blocks did."""


def plan_growth(old: int, depth: int, *, drop: int = 2, how: str = "partial") -> DepthPlan:
    """Return the plan of a network that grows from `old` blocks, of which the last `drop` go, to `depth`.

    SANA-1.5 kept 18 of 20 blocks and grew to 60: the last ones have specialised on the output.
    Raises RequestError for an unknown name and for numbers that don't fit.
    """
    if how not in GROWTHS:
        raise RequestError(f"unknown growth {how!r}: choose one of {', '.join(GROWTHS)}")
    if not 0 <= drop < old:
        raise RequestError(f"drop is {drop}; of {old} blocks 0 to {old - 1} can go")
    if depth <= old:
        raise RequestError(f"the model has {old} blocks already: a depth of {depth} isn't a growth")
    return GROWTHS[how](old - drop, depth)


def plan_pruning(old: int, blocks: Collection[int]) -> DepthPlan:
    """Return the plan of a network of some of its blocks, in their order. Raises RequestError."""
    unknown = sorted(block for block in blocks if not 0 <= block < old)
    if unknown or not blocks:
        what = f"there is no block {unknown[0]}" if unknown else "no block would be left"
        raise RequestError(f"{what}: the model has blocks 0 to {old - 1}")
    return tuple(BlockOrigin(block) for block in sorted(set(blocks)))


def reshape_depth(
    weights: Mapping[str, Tensor], config: TransformerConfig, plan: DepthPlan, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return the weights of the network of `config` that a plan makes of others; blocks that repeat share storage.

    weights: of the old network, by our names. config: of the new one, which may have qk-norm besides: its norms start
    at 1. generator: draws fresh weights. Raises ValueError if config and plan disagree on the depth.
    """
    if config.depth != len(plan):
        raise ValueError(f"a plan of {len(plan)} blocks for a depth of {config.depth}.")
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in SanaTransformer(config).state_dict().items()}
    dtype = next(iter(weights.values())).dtype
    return {name: _weight(name, shape, weights, plan, dtype, generator) for name, shape in shapes.items()}


def reshape_network(
    network: SanaTransformer,
    plan: DepthPlan,
    config: TransformerConfig | None = None,
    generator: torch.Generator | None = None,
) -> SanaTransformer:
    """Return the network that a plan makes of another, on its device; every block has weights of its own.

    config, generator: see `reshape_depth`; by default the network's own with the depth of the plan, and a seed of 0.
    """
    config = config or replace(network.config, depth=len(plan))
    weights = reshape_depth(network.state_dict(), config, plan, generator or torch.Generator().manual_seed(0))
    with torch.device("meta"):
        made = SanaTransformer(config)
    device = network.patch.weight.device
    made.load_state_dict({name: w.clone().to(device) for name, w in weights.items()}, assign=True)
    return made


def origin_text(name: str, plan: DepthPlan, qk_norm: bool) -> str:
    """Say what a weight of the new network is: "kept", "of block 3", "zero", "one" or "fresh".

    name: ours. qk_norm: whether the old network has norms of queries and keys.
    """
    if not name.startswith("blocks."):
        return "kept"
    _, number, within = name.split(".", 2)
    origin, norm = plan[int(number)], ".norm_" in within
    if origin.silent and within in _LAST or origin.block is None and within in _ZERO:
        return "zero"
    if norm and (origin.block is None or not qk_norm):
        return "one"
    return "fresh" if origin.block is None else f"of block {origin.block}"


def _weight(
    name: str, shape: Sequence[int], weights: Mapping[str, Tensor], plan: DepthPlan, dtype: torch.dtype,
    generator: torch.Generator,
) -> Tensor:  # fmt: skip
    if not name.startswith("blocks."):
        return weights[name]
    _, number, within = name.split(".", 2)
    origin = plan[int(number)]
    if origin.silent and within in _LAST:
        return torch.zeros(shape, dtype=dtype)
    if origin.block is None:
        return _fresh(within, shape, generator).to(dtype)
    if ".norm_" in within and f"blocks.{origin.block}.{within}" not in weights:
        return torch.ones(shape, dtype=dtype)
    return weights[f"blocks.{origin.block}.{within}"]


def _fresh(within: str, shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Return a weight of a fresh block, as published."""
    if within in _ZERO:
        return torch.zeros(tuple(shape))
    if ".norm_" in within:
        return torch.ones(tuple(shape))
    return torch.randn(tuple(shape), generator=generator) * (_WIDE_STD if within in _WIDE else _STD)
