"""The arithmetic and the memory of a training run, counted before it begins, and the speed of this machine.

Operations and activations are counted on the meta device. Weights, averages, gradients and the optimiser's state follow
from their numbers. What encodes the set, what draws previews and what a checkpoint stages are in memory at other times
than a step, so the largest counts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from sanakit.base.text_states import TextStates
from sanakit.text import TextConfig, build_gemma
from sanakit.training.optim.settings import OptimizerName
from sanakit.transformer import SanaTransformer, TransformerConfig

_META = torch.device("meta")
_BACKWARD = 3  # a forward pass, and twice as much for the gradients of inputs and weights
_INNER, _OUTER = 1152, 5760
_TOKENS = {"cpu": 512}  # rows of the product that is timed: less than a tenth of a second on two cores
_MANY = 8192  # rows on a GPU, so that launching it counts for little
_SIDES, _WORDS = (4, 8), (8, 40)

STATE: dict[OptimizerName, float] = {
    "adamw": 8.0,
    "came": 4.1,
    "came-8bit": 1.2,
    "adamw-8bit": 2.1,
    "muon": 4.4,
}
"""Bytes of the optimiser's state per trained parameter, about; see docs/optimizers.md."""

_FLOAT = 4
_LATER = 80 * 2**20  # libraries loaded once training begins: measured 79 MB with TensorBoard and Gemma's code
_WRITING = (
    2  # copies of what a checkpoint holds that torch's writer makes; a third one if the run goes on meanwhile
)
_STARTED = 350 * 2**20  # torch and its libraries, if the system doesn't say what is resident


def train_operations(forward: Callable[[], object]) -> float:
    """Operations of a forward pass on the meta device and its backward pass; a multiplication and a sum are two."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward()
    return float(_BACKWARD * counter.get_total_flops())


def counted_step(loss: Callable[[], Tensor]) -> float:
    """Operations of a loss on the meta device with the backward pass that it takes, by torch's own count.

    For comparisons alone: torch counts the gradients of a grouped convolution's weights as if it had no groups.
    """
    with FlopCounterMode(display=False) as counter:
        loss().backward()
    return float(counter.get_total_flops())


def transformer_operations(
    config: TransformerConfig, model: SanaTransformer | None = None
) -> Callable[[int, int], float]:
    """(latent positions, words) -> operations of training on one sample. model: as in `transformer_pass`.

    Every layer is linear in the positions, in the words, or in both: four counts give all.
    """
    few, many = (config.patch_size * side for side in _SIDES)
    corners = _usual_corners(config) if model is None else _corners(config, model)

    def operations(positions: int, words: int) -> float:
        across = (positions - few**2) / (many**2 - few**2)
        along = (words - _WORDS[0]) / (_WORDS[1] - _WORDS[0])
        low, high = (one + along * (other - one) for one, other in corners)
        return low + across * (high - low)

    return operations


@lru_cache(maxsize=8)
def _usual_corners(config: TransformerConfig) -> list[list[float]]:
    """Those of the network as it is, from its first block and its second: all blocks have the same shapes."""
    one, two = (_corners(replace(config, depth=depth)) for depth in (1, 2))
    more = config.depth - 1
    return [[a + more * (b - a) for a, b in zip(*rows, strict=True)] for rows in zip(one, two, strict=True)]


def _corners(config: TransformerConfig, model: SanaTransformer | None = None) -> list[list[float]]:
    """Operations at few and many positions, each with few and many words."""
    sides = (config.patch_size * side for side in _SIDES)
    return [
        [train_operations(partial(transformer_pass, config, side, words, model=model)) for words in _WORDS]
        for side in sides
    ]


def kept_bytes(forward: Callable[[], object]) -> int:
    """Bytes that a forward pass on the meta device keeps for its backward pass, weights left out."""
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if not isinstance(tensor if tensor._base is None else tensor._base, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            found[storage._cdata] = storage.nbytes()
        kept.append(tensor)
        return tensor

    kept: list[Tensor] = []  # alive, so that no two share an address
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        forward()
    return sum(found.values())


def transformer_pass(
    config: TransformerConfig,
    side: int,
    words: int,
    frozen: bool = False,
    model: SanaTransformer | None = None,
) -> Tensor:
    """Return forward pass of one sample at latents [1, C, side, side] with `words` tokens of text, on the meta device.

    frozen: the latents have a gradient, and the weights have none. model: an edited network of this configuration on
    the meta device; None for one as it is.
    """
    samples, model = 1, model or _weightless(config, frozen)
    with _META:
        text = TextStates(
            torch.empty(samples, words, config.text_width), torch.ones(samples, words, dtype=torch.bool)
        )
        latent = torch.empty(samples, config.latent_channels, side, side, requires_grad=frozen)
        guidance = torch.empty(samples) if config.guidance_embed else None
        out: Tensor = model(latent, torch.empty(samples), text, guidance)
    return out


@lru_cache(maxsize=4)
def _weightless(config: TransformerConfig, frozen: bool) -> SanaTransformer:
    """Return the network on the meta device: it is asked again and again at other sizes."""
    with _META:
        return SanaTransformer(config).requires_grad_(not frozen)


def text_pass(config: TextConfig, tokens: int) -> Tensor:
    """Return a forward pass of a text encoder over one caption of `tokens` tokens, on the meta device."""
    model: Any = build_gemma(config, "meta")
    model.to("meta")  # its constants are real
    with _META:
        mask = torch.empty(1, 1, tokens, tokens)  # made beforehand: making one looks at values
        masks = {"full_attention": mask, "sliding_attention": mask}
        ids = torch.empty(1, tokens, dtype=torch.long)
    out: Tensor = model(input_ids=ids, attention_mask=masks, use_cache=False).last_hidden_state
    return out


@torch.no_grad()
def product_rate(device: torch.device, dtype: torch.dtype, rounds: int = 5) -> float:
    """Operations per second of a matrix product as SANA has them, the best of some rounds."""
    tokens = _TOKENS.get(device.type, _MANY)
    x = torch.randn(tokens, _INNER, device=device).to(dtype)
    weight = torch.randn(_OUTER, _INNER, device=device).to(dtype)
    best = float("inf")
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - begun)
    return 2 * tokens * _INNER * _OUTER / best


def usual_rate(device: torch.device, dtype: torch.dtype) -> float:
    """`product_rate` as this process measured it before, on as many threads; measured if it has not been."""
    return _rate_once(device, dtype, torch.get_num_threads())


@lru_cache(maxsize=8)
def _rate_once(device: torch.device, dtype: torch.dtype, threads: int) -> float:
    return product_rate(device, dtype)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes per process.

    Attributes:
        program: Python, torch, and what is read of the set already.
        weights, gradients, average, optimizer: of the network.
        frozen: of networks that a step asks and does not train.
        activations: kept for the backward pass. cast: weights in the dtype of the computation, kept as long.
        encoders: of the frozen networks, while the cache is filled.
        drawing: of a preview. checkpoint: of the copies that writing one takes.
    """

    program: int = 0
    weights: int = 0
    gradients: int = 0
    average: int = 0
    optimizer: int = 0
    frozen: int = 0
    activations: int = 0
    cast: int = 0
    encoders: int = 0
    drawing: int = 0
    checkpoint: int = 0

    @property
    def network(self) -> int:
        """What lies there as long as the run trains."""
        return self.weights + self.average + self.optimizer

    @property
    def step(self) -> int:
        """The most that a training step takes beside the program."""
        return self.network + self.checkpoint + self.gradients + self.frozen + self.activations + self.cast

    @property
    def peak(self) -> int:
        """The most that is there at once."""
        drawing = self.network + self.frozen + self.checkpoint + self.drawing if self.drawing else 0
        return self.program + max(self.encoders, self.step, drawing)

    @property
    def words(self) -> str:
        """The parts that count, in GB."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        shown = {name: size for name, size in parts.items() if size >= 0.005 * self.peak}
        return ", ".join(f"{name} {size / 1e9:.2f}" for name, size in shown.items())


def step_memory(
    parameters: int,
    trained: int,
    optimizer: OptimizerName,
    activations: int,
    half: bool,
    share: int = 1,
    unaveraged: int = 0,
) -> Memory:
    """Memory of the network and its step. share: processes that hold it together. half: computed in bf16.

    unaveraged: parameters of which no average is kept.
    """
    state = round(trained * STATE[optimizer] / share)
    return Memory(
        weights=parameters * _FLOAT // share, gradients=trained * _FLOAT // share,
        average=(parameters - unaveraged) * _FLOAT // share, optimizer=state,
        activations=activations // 2 if half else activations, cast=parameters * 2 if half else 0,
    )  # fmt: skip


def writing_bytes(network: int, behind: bool) -> int:
    """Bytes of the copies that writing a checkpoint takes. behind: while the run goes on."""
    return network * (_WRITING + behind)


def program_bytes() -> int:
    """Bytes that this process holds (if the system does not tell, about what torch takes) and will still load."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return _STARTED + _LATER
    return pages * os.sysconf("SC_PAGE_SIZE") + _LATER
