"""What an engine serves, from where, and within which limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sanakit.base.echo import as_utf8
from sanakit.base.errors import ConfigError
from sanakit.pipeline.signing import Signer


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """The settings of an engine.

    data       folder of jobs, pictures and inputs; one engine at a time
    models     names as `pipeline.load` takes them; the first is the default
    loras, controls   name -> file or folder, that requests may use by this name
    decoder    whose autoencoder makes the images of every model; None for their own
    device, dtype, fast, threads   as of `pipeline.load`, for every model
    queue      jobs that wait at most; more are refused
    count, steps, pixels   most pictures of a job, solver steps, and pixels of a picture
    batch      pictures in one forward pass, at most; memory may allow fewer
    groups     sets of pictures with a shape of their own that take turns, at most
    patience   seconds that a job waits for others to make room before nobody overtakes it any more
    prompts    encoded prompts that each model keeps
    keep_days      days that a finished job stays; None for ever
    keep_pictures  newest pictures that stay, of all owners together; jobs before them go. None for all
    signer     signs every picture; None for none
    """

    data: Path
    models: tuple[str, ...] = ("toybox",)
    loras: Mapping[str, Path] = field(default_factory=dict)
    controls: Mapping[str, Path] = field(default_factory=dict)
    decoder: str | None = None
    device: str | None = None
    dtype: str | None = None
    fast: str | None = None
    threads: int | None = None
    queue: int = 256
    count: int = 64
    steps: int = 200
    pixels: int = 4096 * 4096
    batch: int = 16
    groups: int = 4
    patience: float = 5.0
    prompts: int = 64
    keep_days: float | None = None
    keep_pictures: int | None = None
    signer: Signer | None = None


_LORAS = (".safetensors",)
_CONTROLS = (".safetensors", ".pth")


def loras_in(folder: Path | None) -> dict[str, Path]:
    """Name -> file of the LoRAs in a folder. Raises ConfigError if it isn't there."""
    return {path.name: path for path in _entries(folder) if path.suffix in _LORAS and path.is_file()}


def controls_in(folder: Path | None) -> dict[str, Path]:
    """Name -> folder or file of the ControlNets in a folder. Raises ConfigError if it isn't there."""
    return {path.name: path for path in _entries(folder) if path.is_dir() or path.suffix in _CONTROLS}


def _entries(folder: Path | None) -> list[Path]:
    """Return what lies in a folder, in order; hidden files and names that are no UTF-8 are passed over."""
    if folder is None:
        return []
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}")
    found = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path.absolute() for path in found if as_utf8(path.name) == path.name)
