"""The formats in which networks are stored, one row each: loading, identifying, saving and converting ask this table.

A file holds the tensors of one network under its authors' names. A component folder holds config.json and weight files
with a known stem. A new format is a module beside this one and a row in `FILES` or `FOLDERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sanakit.weights.formats import (
    dcae_pth,
    diffusers_autoencoder,
    diffusers_control,
    diffusers_transformer,
    int8,
    sana_control_pth,
    sana_pth,
)
from sanakit.weights.rules import Table
from sanakit.weights.tensor_files import DIFFUSERS_STEM, variants

Network = Literal["transformer", "autoencoder", "control"]
Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class FileFormat:
    """A file of weights under the names of a network's authors.

    detect: whether tensors of these names and shapes are of this format. table: rows for a configuration.
    read_shapes: what shapes show of a network. infer: a whole configuration, with conventions or keyword arguments for
    what shapes leave open. Both raise WeightsError if the tensors are of another network.
    """

    name: str
    network: Network
    detect: Callable[[Shapes], bool]
    table: Callable[[Any], Table]
    read_shapes: Callable[[Shapes, str], Any]
    infer: Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class FolderFormat:
    """A component folder.

    class_name: `_class_name` of its config.json. stem: of its weight files, by which a folder is recognised.
    read_config, write_config: config.json to our configuration and back. table: rows for a configuration and the
    names in the files. exact_dtype: tensors whose dtype is never changed.
    """

    name: str
    network: Network
    class_name: str
    stem: str = DIFFUSERS_STEM
    read_config: Callable[..., Any]
    write_config: Callable[[Any], dict[str, Any]]
    table: Callable[[Any, Collection[str]], Table]
    exact_dtype: Callable[[Collection[str]], frozenset[str]] = lambda keys: frozenset()


INT8 = FolderFormat(
    name="int8",
    network="transformer",
    class_name=diffusers_transformer.CLASS,
    stem=int8.STEM,
    read_config=diffusers_transformer.from_config,
    write_config=diffusers_transformer.to_config,
    table=int8.table,
    exact_dtype=int8.exact_dtype,
)
TRANSFORMER = FolderFormat(
    name="diffusers transformer",
    network="transformer",
    class_name=diffusers_transformer.CLASS,
    read_config=diffusers_transformer.from_config,
    write_config=diffusers_transformer.to_config,
    table=lambda config, keys: diffusers_transformer.table(config),
)
AUTOENCODER = FolderFormat(
    name="diffusers autoencoder",
    network="autoencoder",
    class_name=diffusers_autoencoder.CLASS,
    read_config=diffusers_autoencoder.from_config,
    write_config=diffusers_autoencoder.to_config,
    table=lambda config, keys: diffusers_autoencoder.table(config),
)
CONTROL = FolderFormat(
    name="diffusers ControlNet",
    network="control",
    class_name=diffusers_control.CLASS,
    read_config=diffusers_control.from_config,
    write_config=diffusers_control.to_config,
    table=lambda config, keys: diffusers_control.table(config),
)
FOLDERS: tuple[FolderFormat, ...] = (AUTOENCODER, CONTROL, INT8, TRANSFORMER)
"""In the order in which they are tried; the last row (of a network) is taken if none fits, and its error says why."""

FILES: tuple[FileFormat, ...] = (
    FileFormat(
        name="DC-AE",
        network="autoencoder",
        detect=dcae_pth.is_dcae,
        table=dcae_pth.table,
        read_shapes=dcae_pth.read_shapes,
        infer=dcae_pth.infer_config,
    ),
    FileFormat(
        name="SANA ControlNet",
        network="control",
        detect=sana_control_pth.is_control,
        table=sana_control_pth.table,
        read_shapes=sana_control_pth.read_shapes,
        infer=sana_control_pth.infer_config,
    ),
    FileFormat(
        name="SANA",
        network="transformer",
        detect=sana_pth.is_sana,
        table=sana_pth.table,
        read_shapes=sana_pth.read_shapes,
        infer=sana_pth.infer_config,
    ),
)
"""In the order in which they are tried; the last row is taken if none fits, and its error names what is missing."""


def file_format(shapes: Shapes, network: Network | None = None) -> FileFormat:
    """Return the format of a file with tensors of these shapes; only of one network if it is given."""
    rows = [row for row in FILES if network in (None, row.network)]
    return next((row for row in rows if row.detect(shapes)), rows[-1])


def file_format_for(network: Network) -> FileFormat:
    """Return the format in which a network is written to a file: the last row of that network."""
    return [row for row in FILES if row.network == network][-1]


def folder_format(network: Network, folder: Path) -> FolderFormat:
    """Return the format of a component folder, by the names of its weight files."""
    rows = [row for row in FOLDERS if row.network == network]
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return next((row for row in rows if variants(names, row.stem)), rows[-1])


def config_format(config: Mapping[str, Any], network: Network | None = None) -> FolderFormat:
    """Return the format that reads a config.json, by its `_class_name`; only of one network if it is given."""
    rows = [row for row in FOLDERS if network in (None, row.network)]
    return next((row for row in rows if row.class_name == config.get("_class_name")), rows[-1])
