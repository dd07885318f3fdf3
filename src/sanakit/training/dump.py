"""The batch of a skipped step, kept for a look: `RUN/skipped/step-00000123-0.pt`, plain values and tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sanakit.base.files import atomic_write, ensure_writable_folder

_FOLDER, _MOST = "skipped", 50


def dump_batch(folder: Path, step: int, rank: int, batch: object) -> Path:
    """Write what this process saw at a step, to be read with `torch.load(..., weights_only=True)`.

    Of very many skipped steps the first fifty are kept. Returns where it is, or would be. Raises OutputError.
    """
    home = ensure_writable_folder(folder / _FOLDER)
    path = home / f"step-{step:08d}-{rank}.pt"
    if len(list(home.glob("step-*.pt"))) < _MOST:
        atomic_write(path, lambda draft: torch.save(plain(batch), draft))
    return path


def plain(value: object) -> Any:
    """Values of our own as dictionaries, tensors on the CPU, anything else as text: what weights_only reads."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)
