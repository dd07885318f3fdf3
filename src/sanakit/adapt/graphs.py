"""CUDA graphs: all kernels of a step, or of a decode, recorded once for each shape and launched as one.

At 1,024 tokens a GPU finishes a kernel sooner than Python asks for the next. A recording reads and writes fixed memory:
inputs are copied in, the result is copied out. The text of a picture is an input as well, padded to a multiple of
`TEXT_STEP` tokens, so that another prompt needs no other recording.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sanakit.autoencoder import DCAE
from sanakit.layers.cross_attention import Memory
from sanakit.transformer import Perturbation, SanaTransformer, TextMemory

TEXT_STEP = 64

Recording = tuple[Tensor, Callable[[], object]]
Recorder = Callable[[Callable[[], Tensor]], Recording]


def record_cuda(run: Callable[[], Tensor]) -> Recording:
    """Record what `run` launches; twice unrecorded first, for what is compiled or chosen at the first call."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run()
        run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = run()
    return out, graph.replay


@dataclass(frozen=True, eq=False)
class _Kept:
    """One recording: where its inputs are read, where its result lies, and what runs it."""

    inputs: tuple[Tensor, ...]
    out: Tensor
    replay: Callable[[], object]


class Recorded:
    """A function of tensors that is recorded for each set of shapes and replayed from then on.

    run: of tensors and `key`; must launch the same kernels whenever shapes and key are the same.
    """

    def __init__(self, run: Callable[..., Tensor], recorder: Recorder = record_cuda) -> None:
        self._run, self._recorder = run, recorder
        self._kept: dict[Hashable, _Kept] = {}

    def __call__(self, *inputs: Tensor, key: Hashable = None) -> Tensor:
        """`run(*inputs, key=key)`. key: what else the launches depend on."""
        place = (key, tuple((x.shape, x.dtype) for x in inputs))
        if place not in self._kept:
            fixed = tuple(x.detach().clone(memory_format=torch.contiguous_format) for x in inputs)
            self._kept[place] = _Kept(fixed, *self._recorder(lambda: self._run(*fixed, key=key)))
        kept = self._kept[place]
        torch._foreach_copy_(kept.inputs, inputs)  # few launches for the many small tensors of a text
        kept.replay()
        return kept.out.clone()


class _Form(NamedTuple):
    """What a step depends on besides its tensors; residuals: their number."""

    settled: bool
    guided: bool
    residuals: int
    perturbation: Perturbation | None


def record_steps(model: SanaTransformer, recorder: Recorder = record_cuda) -> None:
    """Replay the forward pass of `model`, in place: for drawing, without gradients."""
    plain, read = model.forward, model.read

    def run(*flat: Tensor, key: _Form) -> Tensor:
        parts = iter(flat)
        latent, time = next(parts), next(parts)
        guidance = next(parts) if key.guided else None
        residuals = tuple(next(parts) for _ in range(key.residuals))
        memory = _unflatten(tuple(parts), key.settled)
        return plain(latent, time, memory, guidance, residuals, key.perturbation)

    recorded = Recorded(run, recorder)

    def forward(
        latent: Tensor,
        time: Tensor,
        text: TextMemory,
        guidance: Tensor | None = None,
        residuals: tuple[Tensor, ...] = (),
        perturbation: Perturbation | None = None,
    ) -> Tensor:
        memory = _padded(text)
        settled = memory.blocks[0].settled is not None
        form = _Form(settled, guidance is not None, len(residuals), perturbation)
        given = () if guidance is None else (guidance,)
        return recorded(latent, time, *given, *residuals, *_flatten(memory), key=form)

    # Padded when it is read, a text is not padded again at every step.
    model.read = lambda text, lone=0: _padded(read(text, lone))  # type: ignore[method-assign]
    model.forward = forward  # type: ignore[method-assign, assignment]


def record_decode(model: DCAE, recorder: Recorder = record_cuda) -> None:
    """Replay `model.decode`, in place."""
    plain = model.decode
    model.decode = Recorded(lambda latent, key: plain(latent), recorder)  # type: ignore[method-assign, assignment]


def record(module: nn.Module, recorder: Recorder = record_cuda) -> None:
    """Replay what a part of a model does when it draws, in place; parts that run once per picture are left alone."""
    if isinstance(module, SanaTransformer):
        record_steps(module, recorder)
    if isinstance(module, DCAE):
        record_decode(module, recorder)


def _padded(memory: TextMemory) -> TextMemory:
    """The same with a multiple of `TEXT_STEP` tokens, those that were added hidden by the mask."""
    first = memory.blocks[0].key
    samples, _, length, _ = first.shape
    more, real = -length % TEXT_STEP, memory.mask
    if more == 0 and real is not None:
        return memory
    if real is None:
        real = torch.ones(samples, length, dtype=torch.bool, device=first.device)
    blocks = tuple(
        Memory(F.pad(m.key, (0, 0, 0, more)), F.pad(m.value, (0, 0, 0, more)), m.settled)
        for m in memory.blocks
    )
    return TextMemory(blocks, F.pad(real, (0, more)))


def _flatten(memory: TextMemory) -> list[Tensor]:
    assert memory.mask is not None
    tensors = [memory.mask]
    for block in memory.blocks:
        tensors += [block.key, block.value, *([] if block.settled is None else [block.settled])]
    return tensors


def _unflatten(tensors: tuple[Tensor, ...], settled: bool) -> TextMemory:
    """The reverse of `_flatten`."""
    mask, rest, each = tensors[0], tensors[1:], 3 if settled else 2
    groups = (rest[i : i + each] for i in range(0, len(rest), each))
    return TextMemory(tuple(Memory(*group) for group in groups), mask)
