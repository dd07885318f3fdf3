"""A model that differs from another one in its transformer: that is written, the other parts are copied.

Copies share blocks with the base where the file system can do that; elsewhere they take the room of an autoencoder and
a text encoder (16 MB for Toybox, 6.4 GB for a published SANA). Hard links would cost nothing, and writing into a file
of the export would then change the base: the hub's cache, or the model that ships.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sanakit.base.folders import new_folder
from sanakit.weights.known import check_own, copy_known, is_model_file, tokenizer_files
from sanakit.weights.model_spec import ModelSpec
from sanakit.weights.read import DIFFUSERS_STEM, TRANSFORMERS_STEM, weight_files
from sanakit.weights.save import refuse_existing, save_text_encoder, save_transformer, write_settings
from sanakit.weights.words import write_words

__all__ = ["check_parts", "write_derived"]


def write_derived(
    spec: ModelSpec,
    folder: Path,
    transformer: nn.Module | Mapping[str, Tensor],
    *,
    text_encoder: Mapping[str, Tensor] | None = None,
    words: Iterable[str] = (),
    force: bool = False,
    **options: Any,
) -> Path:
    """Write a whole model to `folder`: this transformer and schedule, the other parts those of `spec`.

    text_encoder: weights of one that was trained, too, for the configuration and the tokenizer of `spec`.
    words: that the model has learnt, for `weights.words`. options: of the weights, as in `save_weights`. The folder
    appears, or changes, all at once. Returns it. Raises OutputError when it is occupied and `force` is false, or can't
    be written; ConfigError where a file of the other parts leads out of their model.
    """
    refuse_existing(folder, force)
    with new_folder(folder, replace=force, ours=is_model_file) as draft:
        save_transformer(draft / "transformer", spec.transformer, transformer, **options)
        if text_encoder is not None:
            save_text_encoder(draft / "text_encoder", spec.text_config, text_encoder, **options)
        for name, path in _parts(spec):
            if name != "text_encoder" or text_encoder is None:
                copy_known(path, path.parent.parent, draft / name / path.name)
        write_words(draft, words)
        write_settings(spec, draft)
    return folder


def check_parts(spec: ModelSpec) -> None:
    """Raises ConfigError or WeightsError where `write_derived` could not take the other parts along."""
    for _, path in _parts(spec):
        check_own(path, path.parent.parent)


def _parts(spec: ModelSpec) -> list[tuple[str, Path]]:
    """What loading reads of autoencoder, text encoder and tokenizer: (name of the component, file)."""
    vae, text = spec.autoencoder_folder, spec.text_folder
    files = {
        "vae": [vae / "config.json", *weight_files(vae, DIFFUSERS_STEM)],
        "text_encoder": [text / "config.json", *weight_files(text, TRANSFORMERS_STEM)],
        "tokenizer": tokenizer_files(spec.tokenizer_folder),
    }
    return [(name, path) for name, paths in files.items() for path in paths]
