"""Strict loading onto modules built on the meta device: each tensor is read, cast, moved and assigned in turn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from sanakit.autoencoder import AutoencoderConfig
from sanakit.base.aligned import aligned
from sanakit.base.errors import WeightsError
from sanakit.transformer import TransformerConfig
from sanakit.weights.checkpoint import Part, open_checkpoint
from sanakit.weights.formats import diffusers_autoencoder, diffusers_transformer, gemma, sana_pth
from sanakit.weights.read import DIFFUSERS_STEM, TRANSFORMERS_STEM, open_weights
from sanakit.weights.rules import check_keys, describe, listed

__all__ = ["align", "assign", "load_autoencoder", "load_text_encoder", "load_transformer", "open_transformer"]


def assign(
    module: nn.Module,
    pairs: Iterable[tuple[str, Tensor]],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    where: str = "the weights",
    as_stored: frozenset[str] = frozenset(),
    mapped: bool = False,
) -> None:
    """Put (name, tensor) pairs into a module, meta-built or not, without copying it first.

    dtype None keeps the dtype of the file; parameters and persistent buffers follow it, but for those named in
    `as_stored`, which must have the module's dtype. Every tensor ends up contiguous and at an aligned address (see
    `base.aligned`), wherever it came from, so that the same weights give the same bits; with `mapped` one that needs no
    change stays in the mapped file, for a module whose weights are laid out anew next: see `align`.
    Raises WeightsError, listing the first few, when names or shapes differ or a tensor is not floating; the module is
    then as before.
    """
    own = module.state_dict()
    wanted = {key: tensor.shape for key, tensor in own.items()}
    state: dict[str, Tensor] = {}
    unfit: list[str] = []
    for name, tensor in pairs:
        kept = name in as_stored
        fits = tensor.dtype == own[name].dtype if kept and name in own else tensor.is_floating_point()
        if name in wanted and (tensor.shape != wanted[name] or not fits):
            kind = str(own[name].dtype).removeprefix("torch.") if kept else "floating"
            unfit.append(f"{name} {describe(tensor)} instead of {list(wanted[name])} {kind}")
        elif not unfit:
            placed = tensor.to(device=device, dtype=None if kept else dtype)
            state[name] = placed if mapped else aligned(placed)
    if unfit:
        raise WeightsError(f"{where} does not fit the configuration: {listed(unfit)}")
    check_keys(state, list(wanted), where)
    module.load_state_dict(state, strict=True, assign=True)


def align(module: nn.Module) -> None:
    """Copy the parameters and buffers of a module that do not lie as `base.aligned` wants it, one by one, in place."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = aligned(tensor.data)


def load_transformer(
    module: nn.Module,
    config: TransformerConfig,
    source: Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    variant: str | None = None,
    mapped: bool = False,
    part: Part | None = None,
) -> None:
    """Fill a `SanaTransformer` from a diffusers component folder, or from `part` of a file with its authors' names.

    As `assign`. Raises WeightsError.
    """
    pairs = open_transformer(config, source, variant, part)
    assign(module, pairs, dtype=dtype, device=device, where=str(source), mapped=mapped)


def open_transformer(
    config: TransformerConfig, source: Path, variant: str | None = None, part: Part | None = None
) -> Iterable[tuple[str, Tensor]]:
    """Our (name, tensor) pairs of a component folder or a file, one by one. Raises WeightsError."""
    if source.is_file():
        return sana_pth.table(config).stream_ours(open_checkpoint(source, part).tensors, str(source))
    weights = open_weights(source, DIFFUSERS_STEM, variant)
    return diffusers_transformer.table(config).stream_ours(weights, str(source))


def load_autoencoder(
    module: nn.Module,
    config: AutoencoderConfig,
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    variant: str | None = None,
    mapped: bool = False,
) -> None:
    """Fill a `DCAE` from a diffusers component folder; as `assign`. Raises WeightsError."""
    weights: Mapping[str, Tensor] = open_weights(folder, DIFFUSERS_STEM, variant)
    pairs = diffusers_autoencoder.table(config).stream_ours(weights, str(folder))
    assign(module, pairs, dtype=dtype, device=device, where=str(folder), mapped=mapped)


def load_text_encoder(
    module: nn.Module,
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    variant: str | None = None,
) -> None:
    """Fill a `Gemma2Model` from a text_encoder folder, whether its keys start with `model.` or not.

    Raises WeightsError. Non-persistent buffers (rotary frequencies) are not in files and stay as the module has them.
    """
    weights = open_weights(folder, TRANSFORMERS_STEM, variant)
    pairs = gemma.table(list(module.state_dict()), weights).stream_ours(weights, str(folder))
    assign(module, pairs, dtype=dtype, device=device, where=str(folder))
