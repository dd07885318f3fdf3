"""ControlNets on disk: a folder as diffusers writes it, or an official file, described beside the model they steer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sanakit.base.echo import quoted
from sanakit.base.errors import ConfigError, ModelNotFoundError, WeightsError
from sanakit.base.files import is_file, is_folder, user_path
from sanakit.transformer import ControlConfig, ControlNet, TransformerConfig
from sanakit.weights.checkpoint import open_checkpoint
from sanakit.weights.formats import diffusers_control, sana_control_pth
from sanakit.weights.formats.fields import STRICT, UnknownFields, read_json
from sanakit.weights.formats.registry import CONTROL, file_format
from sanakit.weights.hub import control_files, fetch
from sanakit.weights.load import assign, open_network
from sanakit.weights.names import is_hub_id
from sanakit.weights.save import save_network

_INSIDE = "controlnet"  # the folder of a ControlNet in that of a whole pipeline


@dataclass(frozen=True, kw_only=True)
class ControlSpec:
    """A ControlNet on disk. source: its folder, or an official file."""

    source: Path
    config: ControlConfig

    def build(
        self, *, dtype: torch.dtype | None = None, device: torch.device | str = "cpu", mapped: bool = False
    ) -> ControlNet:
        """Load it, strictly; arguments as of `load.assign`. Raises WeightsError."""
        with torch.device("meta"):
            module = ControlNet(self.config)
        pairs, exact = open_network("control", self.config, self.source)
        assign(
            module, pairs, dtype=dtype, device=device, where=str(self.source), as_stored=exact, mapped=mapped
        )
        return module


def read_control_spec(path: Path, base: TransformerConfig, unknown: UnknownFields = STRICT) -> ControlSpec:
    """Describe the ControlNet at a path and check that it fits a base network; no weights are read.

    path: its folder, that of a pipeline with one, or an official file. Raises ConfigError or WeightsError if there is
    none or it doesn't fit.
    """
    found = _read_file(path, base) if path.is_file() else _read_folder(path, unknown)
    problem = found.config.mismatch(base)
    if problem is not None:
        raise ConfigError(f"the ControlNet {found.source} {problem}: take one that was made for this model")
    return found


def holds_control(path: Path) -> bool:
    """Return whether a file holds an official ControlNet; False for files that can't be read."""
    try:
        return file_format(open_checkpoint(path).shapes).network == "control"
    except WeightsError:
        return False


def describe_control(path: Path) -> ControlConfig:
    """Describe a folder or an official file alone; a file says nothing of heads. Raises ConfigError or WeightsError."""
    if path.is_dir():
        return _read_folder(path, STRICT).config
    shapes = open_checkpoint(path).shapes
    return sana_control_pth.infer_config(shapes, where=str(path), cross_heads=1)


def _read_folder(path: Path, unknown: UnknownFields) -> ControlSpec:
    folder = path / _INSIDE if (path / _INSIDE / "config.json").is_file() else path
    where = folder / "config.json"
    data = read_json(where)
    if data.get("_class_name") != diffusers_control.CLASS:
        raise ConfigError(
            f"{folder} holds no ControlNet of SANA: the class of its config.json is "
            f"{quoted(data.get('_class_name'))}, not {diffusers_control.CLASS!r}"
        )
    return ControlSpec(source=folder, config=diffusers_control.from_config(data, str(where), unknown))


def _read_file(path: Path, base: TransformerConfig) -> ControlSpec:
    shapes = open_checkpoint(path).shapes
    if file_format(shapes).network != "control":
        raise ConfigError(f"{path} holds no ControlNet of SANA: its tensors are those of another network")
    return ControlSpec(source=path, config=sana_control_pth.of_base(shapes, base, str(path)))


def resolve_control(name: str | Path, *, announce: Callable[[str], object] = lambda text: None) -> Path:
    """Find a ControlNet by its name: a folder, a file, or a hub id, of whose repository only it is downloaded.

    announce is called with the size before anything is downloaded. Raises ModelNotFoundError.
    """
    path, text = user_path(name), str(name)
    if text and (is_folder(path) or is_file(path)):
        return path
    if not is_hub_id(text):
        raise ModelNotFoundError(
            f"no ControlNet {quoted(text, 200)}: it isn't a folder, an official .pth or a hub id"
        )
    found, why = fetch(
        text,
        announce,
        None,
        lambda sizes: control_files(text, sizes),
        index=(f"{_INSIDE}/config.json", "config.json"),
    )
    if found is None:
        raise ModelNotFoundError(f"no ControlNet {text!r}: no such folder, and {why}")
    return found


def save_control(
    folder: Path, config: ControlConfig, model: nn.Module | Mapping[str, Tensor], **options: Any
) -> list[Path]:
    """Write a diffusers `SanaControlNetModel` folder from our module or state dict; options as in `save_weights`.

    Raises ConfigError for the official wiring (see `in_diffusers_wiring`), WeightsError, OutputError.
    """
    return save_network(folder, CONTROL, replace(config, base_depth=None), model, options)
