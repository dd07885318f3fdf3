"""CUDA graphs: all kernels of a step, or of a decode, recorded once for each shape and launched as one.

At 1,024 tokens a GPU finishes a kernel sooner than Python asks for the next. A recording reads and writes fixed memory:
inputs are copied in, the result is copied out. The text of a picture is an input as well, padded to a multiple of
`TEXT_STEP` tokens, so that another prompt needs no other recording.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sanakit.autoencoder import DCAE
from sanakit.layers.cross_attention import KV
from sanakit.transformer import SanaTransformer, TextKV

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
    """What a step depends on besides its tensors: which of them there are, and the blocks that are perturbed."""

    single: bool
    guided: bool
    perturbed: tuple[int, ...]


def record_steps(model: SanaTransformer, recorder: Recorder = record_cuda) -> None:
    """Replay the forward pass of `model`, in place: for drawing, without gradients."""
    plain, precompute = model.forward, model.precompute_text

    def run(*flat: Tensor, key: _Form) -> Tensor:
        parts = iter(flat)
        latent, time = next(parts), next(parts)
        guidance = next(parts) if key.guided else None
        perturbed = {index: next(parts) for index in key.perturbed}
        return plain(latent, time, _unflatten(tuple(parts), key.single), guidance, perturbed)

    recorded = Recorded(run, recorder)

    def forward(
        latent: Tensor,
        time: Tensor,
        text: TextKV,
        guidance: Tensor | None = None,
        perturbed: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        text_kv, masks = _padded(text), perturbed or {}
        single = text_kv.blocks[0].rows is not None
        form = _Form(single, guidance is not None, tuple(masks))
        given = () if guidance is None else (guidance,)
        return recorded(latent, time, *given, *masks.values(), *_flatten(text_kv), key=form)

    # Padded when it is precomputed, a text is not padded again at every step.
    model.precompute_text = lambda text, single=None: _padded(precompute(text, single))  # type: ignore[method-assign]
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


def _padded(text: TextKV) -> TextKV:
    """The same with a multiple of `TEXT_STEP` tokens, those that were added hidden by the mask."""
    first = text.blocks[0].key
    samples, _, length, _ = first.shape
    more, real = -length % TEXT_STEP, text.mask
    if more == 0 and real is not None:
        return text
    if real is None:
        real = torch.ones(samples, length, dtype=torch.bool, device=first.device)
    blocks = tuple(
        replace(kv, key=F.pad(kv.key, (0, 0, 0, more)), value=F.pad(kv.value, (0, 0, 0, more)))
        for kv in text.blocks
    )
    return TextKV(blocks, F.pad(real, (0, more)))


def _flatten(text: TextKV) -> list[Tensor]:
    assert text.mask is not None
    rows = text.blocks[0].rows
    tensors = [text.mask, *([] if rows is None else [rows])]
    for kv in text.blocks:
        tensors += [kv.key, kv.value, *([] if kv.constant is None else [kv.constant])]
    return tensors


def _unflatten(tensors: tuple[Tensor, ...], single: bool) -> TextKV:
    """The reverse of `_flatten`."""
    parts = iter(tensors)
    mask, rows = next(parts), next(parts) if single else None
    blocks = []
    for key in parts:
        blocks.append(KV(key, next(parts), rows, next(parts) if single else None))
    return TextKV(tuple(blocks), mask)
