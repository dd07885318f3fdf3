"""A model that differs from another one in its transformer: that is written, the rest is shared by hard links.

A hard link takes no space and no time, and stays whole when the other name is deleted. Where the file system has none,
files are copied.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sanakit.base.errors import OutputError
from sanakit.base.files import ensure_writable_folder
from sanakit.weights.descriptor import Descriptor
from sanakit.weights.save import refuse_existing, save_transformer, write_settings

__all__ = ["write_derived"]


def write_derived(
    descriptor: Descriptor,
    folder: Path,
    transformer: nn.Module | Mapping[str, Tensor],
    *,
    force: bool = False,
    **options: Any,
) -> Path:
    """Write a whole model to `folder`: this transformer and schedule, the other parts those of `descriptor.folder`.

    options: of the transformer's weights, as in `save_weights`. Returns the folder.
    Raises OutputError when it is occupied and `force` is false, or can't be written.
    """
    refuse_existing(folder, force)
    save_transformer(folder / "transformer", descriptor.transformer, transformer, **options)
    for part in (descriptor.autoencoder_folder, descriptor.text_folder, descriptor.tokenizer_folder):
        _share(part, ensure_writable_folder(folder / part.name))
    write_settings(descriptor, folder)
    return folder


def _share(source: Path, target: Path) -> None:
    """Every file of a folder under the same name in another."""
    for path in sorted(path for path in source.iterdir() if path.is_file()):
        name = target / path.name
        draft = target / f".{path.name}.part"
        draft.unlink(missing_ok=True)
        try:
            os.link(path.resolve(), draft)
        except OSError:
            _copy(path, draft)
        os.replace(draft, name)


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise OutputError(f"can't write {target}: {error.strerror or error}") from error
