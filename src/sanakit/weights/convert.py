"""Converting the transformer between official `.pth` and diffusers folder, both ways.

Bit-equal unless a dtype is asked for.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from sanakit.base.errors import WeightsError
from sanakit.base.files import atomic_write, ensure_writable_folder
from sanakit.transformer import TransformerConfig
from sanakit.weights.formats import diffusers_transformer, sana_pth
from sanakit.weights.formats.fields import read_json
from sanakit.weights.load import open_transformer
from sanakit.weights.read import read_pth
from sanakit.weights.save import MAX_SHARD_SIZE, refuse_existing, save_transformer

__all__ = ["diffusers_to_pth", "pth_to_diffusers"]


def pth_to_diffusers(
    source: Path,
    folder: Path,
    *,
    dtype: torch.dtype | None = None,
    cross_heads: int | None = None,
    sample_size: int | None = None,
    position_scale: float | None = None,
    max_shard_size: int | str = MAX_SHARD_SIZE,
    variant: str | None = None,
    force: bool = False,
) -> TransformerConfig:
    """Write the transformer of an official `.pth` as a diffusers component folder (config.json and safetensors).

    What a `.pth` does not tell is inferred as `sana_pth.infer_config` says, or given. dtype None keeps the file's.
    Tensors go from file to file one by one. Returns the configuration, in the official dialect; note that diffusers
    will read the folder in its own. Raises WeightsError, ConfigError, and OutputError when the folder is occupied.
    """
    refuse_existing(folder, force)
    tensors = read_pth(source)
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    config = sana_pth.infer_config(
        shapes,
        cross_heads=cross_heads,
        sample_size=sample_size,
        position_scale=position_scale,
        where=str(source),
    )
    ours = sana_pth.table(config).to_ours(tensors, str(source))
    save_transformer(folder, config, ours, dtype=dtype, max_shard_size=max_shard_size, variant=variant)
    return config


def diffusers_to_pth(
    source: Path,
    path: Path,
    *,
    dtype: torch.dtype | None = None,
    null_caption: Tensor | None = None,
    variant: str | None = None,
    force: bool = False,
) -> TransformerConfig:
    """Write a diffusers transformer (its folder, or that of a whole model) as an official `.pth`.

    null_caption, [300, text_width], becomes `y_embedder.y_embedding`: the official code replaces it on loading and
    does without, so the default is to leave it out, as the unused positional buffer is. Returns the configuration.
    Raises WeightsError, ConfigError, and OutputError when the file exists.
    """
    refuse_existing(path, force)
    folder = source / "transformer" if (source / "model_index.json").exists() else source
    config = diffusers_transformer.from_config(read_json(folder / "config.json"), str(folder / "config.json"))
    ours = dict(open_transformer(config, folder, variant))
    state = sana_pth.table(config).to_theirs(ours, str(folder))
    if null_caption is not None:
        if null_caption.dim() != 2 or null_caption.shape[1] != config.text_width:
            raise WeightsError(
                f"null_caption is {list(null_caption.shape)}, but should be [tokens, {config.text_width}]"
            )
        state[sana_pth.NULL_CAPTION] = null_caption
    if dtype is not None:
        state = {key: tensor.to(dtype) for key, tensor in state.items()}
    # A view would drag its whole file along: torch.save writes storages, not tensors.
    state = {key: tensor.detach().clone() for key, tensor in state.items()}
    ensure_writable_folder(path.absolute().parent)
    atomic_write(path, lambda draft: torch.save({"state_dict": state}, draft))
    return config
