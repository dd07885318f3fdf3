"""CUDA graphs: all kernels of a step, or of a decode, recorded once for each shape and launched as one.

At 1,024 tokens a GPU finishes a kernel before Python launches the next. A recording reads and writes fixed memory:
inputs are copied in, the result is copied out. Keys and values of the text are inputs as well, padded to a multiple of
`TEXT_STEP` tokens, so that another prompt needs no new recording.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sanakit.adapt.runner import Runner
from sanakit.autoencoder import DCAE, LatentDecoder
from sanakit.base.text_states import TextStates
from sanakit.layers.attention import KV
from sanakit.transformer import ControlNet, SanaTransformer, TextKV

TEXT_STEP = 64

Recording = tuple[Tensor, Callable[[], object]]
Recorder = Callable[[Callable[[], Tensor]], Recording]


def record_cuda(run: Callable[[], Tensor]) -> Recording:
    """Record what `run` launches; it runs twice before, since kernels are compiled and chosen at the first call."""
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
    """A recording: the memory of its inputs and of its result, and the call that replays it."""

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
    """The launches of a step besides its shapes: optional tensors that are given, blocks perturbed and steered."""

    single: bool
    guided: bool
    perturbed: tuple[int, ...] = ()
    residuals: tuple[int, ...] = ()


class RecordedTransformer(Runner):
    """A transformer whose forward pass is recorded and replayed; for inference, without gradients."""

    def __init__(self, part: SanaTransformer, recorder: Recorder = record_cuda) -> None:
        super().__init__(part)
        self._recorded = Recorded(self._replayable, recorder)

    def forward(
        self,
        latent: Tensor,
        time: Tensor,
        text: TextKV,
        guidance: Tensor | None = None,
        perturbed: Mapping[int, Tensor] | None = None,
        residuals: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """As `SanaTransformer`, for a text that is precomputed: [B, C, h, w] -> [B, C, h, w]."""
        text_kv, masks, added = _padded(text), perturbed or {}, residuals or {}
        form = _Form(text_kv.blocks[0].rows is not None, guidance is not None, tuple(masks), tuple(added))
        given = () if guidance is None else (guidance,)
        return self._recorded(
            latent, time, *given, *masks.values(), *added.values(), *_flatten(text_kv), key=form
        )

    def precompute_text(self, text: TextStates, single: Tensor | None = None) -> TextKV:
        """As `SanaTransformer`, padded: else a text would be padded again at every step."""
        return _padded(self.part.precompute_text(text, single))

    def _replayable(self, *flat: Tensor, key: _Form) -> Tensor:
        parts = iter(flat)
        latent, time = next(parts), next(parts)
        guidance = next(parts) if key.guided else None
        perturbed = {index: next(parts) for index in key.perturbed}
        residuals = {index: next(parts) for index in key.residuals}
        text_kv = _unflatten(tuple(parts), key.single)
        velocity: Tensor = self.part(latent, time, text_kv, guidance, perturbed, residuals=residuals)
        return velocity


class RecordedControl(Runner):
    """A ControlNet whose forward pass is recorded and replayed; for inference, without gradients."""

    def __init__(self, part: ControlNet, recorder: Recorder = record_cuda) -> None:
        super().__init__(part)
        self._recorded = Recorded(self._replayable, recorder)

    def forward(
        self, latent: Tensor, time: Tensor, text: TextKV, control: Tensor, guidance: Tensor | None = None
    ) -> Tensor:
        """As `ControlNet`, for a text that is precomputed: residuals [K, B, N, D]."""
        text_kv = _padded(text)
        form = _Form(text_kv.blocks[0].rows is not None, guidance is not None)
        given = () if guidance is None else (guidance,)
        return self._recorded(latent, time, control, *given, *_flatten(text_kv), key=form)

    def precompute_text(self, text: TextStates, single: Tensor | None = None) -> TextKV:
        """As `SanaTransformer`, padded."""
        return _padded(self.part.precompute_text(text, single))

    def _replayable(self, *flat: Tensor, key: _Form) -> Tensor:
        parts = iter(flat)
        latent, time, control = next(parts), next(parts), next(parts)
        guidance = next(parts) if key.guided else None
        residuals: Tensor = self.part(latent, time, _unflatten(tuple(parts), key.single), control, guidance)
        return residuals


class RecordedDecoder(Runner):
    """An autoencoder whose `decode` is recorded and replayed."""

    def __init__(self, part: nn.Module, recorder: Recorder = record_cuda) -> None:
        super().__init__(part)
        self._recorded = Recorded(lambda latent, key: self.part.decode(latent), recorder)

    def decode(self, latent: Tensor) -> Tensor:
        """[B, C, h, w] -> pixels [B, 3, r*h, r*w]."""
        return self._recorded(latent)


def record(module: nn.Module, recorder: Recorder = record_cuda) -> nn.Module:
    """Return `module` replayed from recordings; parts that run once per image as they are."""
    if isinstance(module, SanaTransformer):
        return RecordedTransformer(module, recorder)
    if isinstance(module, ControlNet):
        return RecordedControl(module, recorder)
    if isinstance(module, DCAE | LatentDecoder):
        return RecordedDecoder(module, recorder)
    return module


def _padded(text: TextKV) -> TextKV:
    """Return the same with a multiple of `TEXT_STEP` tokens, those that were added hidden by the mask."""
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
    """Return the reverse of `_flatten`."""
    parts = iter(tensors)
    mask, rows = next(parts), next(parts) if single else None
    blocks = []
    for key in parts:
        blocks.append(KV(key, next(parts), rows, next(parts) if single else None))
    return TextKV(tuple(blocks), mask)
