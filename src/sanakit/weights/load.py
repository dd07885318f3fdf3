"""Strict loading into modules built on the meta device: each tensor is read, cast, moved and assigned in turn."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from sanakit.autoencoder import AutoencoderConfig
from sanakit.base.aligned import aligned
from sanakit.base.errors import WeightsError
from sanakit.base.units import dtype_name
from sanakit.transformer import TransformerConfig
from sanakit.weights.checkpoint import Part, open_checkpoint
from sanakit.weights.formats import gemma, int8
from sanakit.weights.formats.registry import INT8, Network, file_format, folder_format
from sanakit.weights.rules import check_keys, describe, listed
from sanakit.weights.tensor_files import TRANSFORMERS_STEM, open_weights


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
    """Assign (name, tensor) pairs to a module, on the meta device or not, without copying it first.

    dtype None keeps the dtype of the file; parameters and persistent buffers follow it, except those named in
    `as_stored`, which must have the module's dtype. Every tensor ends up contiguous and at an aligned address (see
    `base.aligned`), wherever it came from, so that the same weights give the same bits; with `mapped`, one that needs
    no change stays in the mapped file, for a module whose weights are rearranged next: see `align`.
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
            kind = dtype_name(own[name].dtype) if kept else "floating"
            unfit.append(f"{name} {describe(tensor)} instead of {list(wanted[name])} {kind}")
        elif not unfit:
            placed = tensor.to(device=device, dtype=None if kept else dtype)
            state[name] = placed if mapped else aligned(placed)
    if unfit:
        raise WeightsError(f"{where} does not fit the configuration: {listed(unfit)}")
    check_keys(state, list(wanted), where)
    module.load_state_dict(state, strict=True, assign=True)


def align(module: nn.Module) -> None:
    """Copy the parameters and buffers of a module that are not aligned (see `base.aligned`), one by one, in place."""
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
    """Fill a `SanaTransformer` from a component folder, or from `part` of a file with its authors' names.

    As `assign`. A module for a folder in int8 needs int8 layers first, see `int8_layers`. Raises WeightsError.
    """
    pairs, exact = open_network("transformer", config, source, variant, part)
    assign(module, pairs, dtype=dtype, device=device, where=str(source), as_stored=exact, mapped=mapped)


def open_network(
    network: Network, config: object, source: Path, variant: str | None = None, part: Part | None = None
) -> tuple[Iterable[tuple[str, Tensor]], frozenset[str]]:
    """Our pairs of a folder or a file, in whichever format of the registry, and the names that keep their dtype."""
    if source.is_file():
        opened = open_checkpoint(source, part)
        rows = file_format(opened.shapes, network).table(config)
        return rows.stream_ours(opened.tensors, str(source)), frozenset()
    layout = folder_format(network, source)
    weights = open_weights(source, layout.stem, variant)
    pairs = layout.table(config, weights.keys()).stream_ours(weights, str(source))
    return pairs, layout.exact_dtype(weights.keys())


def int8_layers(source: Path) -> tuple[str, ...]:
    """Names of the layers of a transformer that are stored in int8; none in other formats. Raises WeightsError."""
    if folder_format("transformer", source) is not INT8:
        return ()
    return int8.quantised_layers(open_weights(source, INT8.stem).keys())


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
    """Fill a `DCAE` or its `LatentDecoder` from a diffusers component folder; as `assign`. Raises WeightsError."""
    halves = tuple(f"{name}." for name, _ in module.named_children())
    whole, exact = open_network("autoencoder", config, folder, variant)
    pairs = ((name, tensor) for name, tensor in whole if name.startswith(halves))
    assign(module, pairs, dtype=dtype, device=device, where=str(folder), as_stored=exact, mapped=mapped)


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
