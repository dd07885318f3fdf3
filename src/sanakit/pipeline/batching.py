"""Continuous batching: one forward pass predicts for many pictures, each at a step of its own.

Pictures join if they share a transformer and the shape of their latents. Steps, noise levels, guidance, seeds, solvers,
prompts, regions, controls and perturbed blocks are their own, and so are their branches: outside of its guidance
interval a picture brings one sample, inside two.

The network mixes no samples, so a picture is the same in any company but for the order in which libraries sum: in
float32 its latent stays within 1e-5 of the largest value of the latent drawn alone (tests/pipeline/test_batching.py).
A batch of one is what `Denoiser` runs, to the bit.

Letters: B samples of a pass, all branches of all pictures; C latent channels, h/w latent position, N tokens, D width,
L text tokens, M samples of B whose text has several tokens, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.flow import Branch
from sanakit.layers.attention import KV
from sanakit.pipeline.components import Transformer
from sanakit.pipeline.plan import Plan
from sanakit.pipeline.steering import Steering, steer
from sanakit.transformer import TextKV

Branches = tuple[Branch, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class DenoiserInput:
    """A point of one picture at one step, and what its guided velocity is predicted from.

    x: [1, C, h, w] float32, at noise level `sigma`. text_kv: keys and values of the texts that the branches read.
    steering: what ControlNets add.
    """

    plan: Plan
    branches: Branches
    text_kv: TextKV
    x: Tensor
    sigma: float
    step: int
    steering: tuple[Steering, ...] = ()

    @property
    def samples(self) -> Tensor:
        """The point, once for each branch [branches, C, h, w]."""
        return self.x.expand(len(self.branches), -1, -1, -1)

    @property
    def time(self) -> float:
        """The time that the transformer reads."""
        return self.plan.clock(self.sigma, self.step)

    def perturbs(self, block: int) -> list[bool]:
        """Return which of its samples are perturbed in a block."""
        return [name == "perturbed" and block in self.plan.pag_blocks for name in self.branches]

    def residuals(self) -> dict[int, Tensor]:
        """Return what ControlNets add behind blocks, [branches, N, D] each. Raises NumericsError for NaN or Inf."""
        found = steer(
            self.steering, self.samples, self.sigma, self.step, self.branches, self.plan.guidance_input
        )
        return found or {}

    def combine(self, velocities: Tensor) -> Tensor:
        """Return the guided velocity [1, C, h, w] float32 from those of its samples [branches, C, h, w]."""
        return self.plan.guidance.combine(dict(zip(self.branches, velocities.float().split(1), strict=True)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Pass:
    """The arguments of one forward pass; see `SanaTransformer.forward`. others: those that are given at need."""

    latent: Tensor
    time: Tensor
    text_kv: TextKV
    others: Mapping[str, Any]

    @classmethod
    def of(cls, inputs: Sequence[DenoiserInput], text_kv: TextKV, embeds_guidance: bool) -> Pass:
        """Make the pass for some inputs. text_kv: of all of them. embeds_guidance: the network reads scales.

        Raises NumericsError for NaN or Inf in what a ControlNet adds.
        """
        device = inputs[0].x.device
        times = _numbers([(each.time, len(each.branches)) for each in inputs], device)
        scales = [(each.plan.guidance_input, len(each.branches)) for each in inputs]
        others: dict[str, Any] = {
            "guidance": _numbers(scales, device) if embeds_guidance else None,
            "perturbed": _perturbed(inputs, device),
        }
        residuals = _residuals(inputs)
        latent = inputs[0].samples if len(inputs) == 1 else torch.cat([q.samples for q in inputs])
        return cls(
            latent=latent, time=times, text_kv=text_kv,
            others=others | ({"residuals": residuals} if residuals else {}),
        )  # fmt: skip

    def run(self, transformer: Transformer) -> Tensor:
        """Return the velocities [B, C, h, w] of all samples, in the dtype of the weights."""
        velocities: Tensor = transformer(self.latent, self.time, self.text_kv, **self.others)
        return velocities


class BatchedDenoiser:
    """A `Denoiser` for many pictures at once, which share a transformer and a shape.

    The text of the last batch is kept joined: a batch stays the same for most of its steps.
    """

    def __init__(self, transformer: Transformer) -> None:
        self.transformer = transformer
        self._texts: list[TextKV] = []
        self._joined: TextKV | None = None

    @torch.no_grad()
    def predict(self, inputs: Sequence[DenoiserInput]) -> list[Tensor]:
        """Return each input's guided velocity [1, C, h, w] float32; NaN or Inf only where its own numbers broke."""
        text_kv = self._join([each.text_kv for each in inputs], inputs)
        batch = Pass.of(inputs, text_kv, self.transformer.config.guidance_embed)
        parts = batch.run(self.transformer).split([len(each.branches) for each in inputs])
        return [each.combine(part) for each, part in zip(inputs, parts, strict=True)]

    def _join(self, texts: list[TextKV], inputs: Sequence[DenoiserInput]) -> TextKV:
        same = len(texts) == len(self._texts) and all(a is b for a, b in zip(texts, self._texts, strict=True))
        if self._joined is None or not same:
            sizes = [len(each.branches) for each in inputs]
            self._texts, self._joined = texts, join_texts(texts, sizes, _tokens(self.transformer, inputs))
        return self._joined


def join_texts(texts: Sequence[TextKV], sizes: Sequence[int], tokens: int) -> TextKV:
    """Return the keys and values of several texts as those of one batch.

    Shorter texts are padded, and the mask gives the padding no weight. sizes: samples of each. tokens: N, of the
    picture, for masks that differ from token to token.
    """
    if len(texts) == 1:
        return texts[0]
    length = max(text.blocks[0].key.shape[2] for text in texts)
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    layers = zip(*(text.blocks for text in texts), strict=True)
    blocks = tuple(_join_layer(layer, starts, sizes, length) for layer in layers)
    return TextKV(blocks, _join_masks(texts, length, tokens))


def _join_layer(layer: Sequence[KV], starts: Sequence[int], sizes: Sequence[int], length: int) -> KV:
    key, value = (
        torch.cat([F.pad(part, (0, 0, 0, length - part.shape[2])) for part in parts])
        for parts in ([kv.key for kv in layer], [kv.value for kv in layer])
    )
    known = next((kv.constant for kv in layer if kv.constant is not None), None)
    if known is None:
        return KV(key, value)
    everyone = [torch.arange(size, device=key.device) for size in sizes]
    rows = [
        start + (own if kv.rows is None else kv.rows)
        for start, own, kv in zip(starts, everyone, layer, strict=True)
    ]
    constants = [
        known.new_zeros(size, 1, known.shape[-1]) if kv.constant is None else kv.constant
        for size, kv in zip(sizes, layer, strict=True)
    ]
    return KV(key, value, torch.cat(rows), torch.cat(constants))


def _join_masks(texts: Sequence[TextKV], length: int, tokens: int) -> Tensor | None:
    """[M, L], or [M, N, L] if one of them has a mask for each token; None if every token is real."""
    if all(text.mask is None and text.blocks[0].key.shape[2] == length for text in texts):
        return None
    masks = [F.pad(_mask(text), (0, length - text.blocks[0].key.shape[2]), value=False) for text in texts]
    if any(mask.dim() == 3 for mask in masks):
        masks = [mask if mask.dim() == 3 else mask[:, None].expand(-1, tokens, -1) for mask in masks]
    return torch.cat(masks)


def _mask(text: TextKV) -> Tensor:
    """Return the mask of a text, also of one whose tokens are all real."""
    if text.mask is not None:
        return text.mask
    key = text.blocks[0].key
    return torch.ones(key.shape[0], key.shape[2], dtype=torch.bool, device=key.device)


def _tokens(transformer: Transformer, inputs: Sequence[DenoiserInput]) -> int:
    height, width = inputs[0].x.shape[-2:]
    return int(height * width // transformer.config.patch_size**2)


def _numbers(values: Sequence[tuple[float, int]], device: torch.device) -> Tensor:
    """Return a number per sample, [B]; [1] if all have the same, which is embedded once and modulates all norms."""
    if len({value for value, _ in values}) == 1:
        return torch.full((1,), values[0][0], device=device)
    each = [value for value, times in values for _ in range(times)]
    return torch.tensor(each, dtype=torch.float32, device=device)


def _perturbed(inputs: Sequence[DenoiserInput], device: torch.device) -> dict[int, Tensor] | None:
    """Block -> [B] bool, the samples that are perturbed in it; None if none is anywhere."""
    blocks = dict.fromkeys(
        block for each in inputs if "perturbed" in each.branches for block in each.plan.pag_blocks
    )
    rows = {
        block: torch.tensor([row for each in inputs for row in each.perturbs(block)], device=device)
        for block in blocks
    }
    return rows or None


def _residuals(inputs: Sequence[DenoiserInput]) -> dict[int, Tensor]:
    """Block -> [B, N, D], zero for pictures that nothing steers there. Each ControlNet runs for its picture alone."""
    found = [each.residuals() for each in inputs]
    if len(inputs) == 1:
        return found[0]
    joined = {}
    for block, like in {block: part for parts in found for block, part in parts.items()}.items():
        joined[block] = torch.cat(
            [
                parts[block] if block in parts else like.new_zeros(len(each.branches), *like.shape[1:])
                for each, parts in zip(inputs, found, strict=True)
            ]
        )
    return joined
