"""LoRA files, read in every form of `formats/lora_names`; `lora_save` writes them.

pair (down [r, K], up [o, r]) of each published matrix  <->  LowRank of each layer of ours, where q, k, v are one
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from sanakit.base.echo import quoted
from sanakit.base.errors import WeightsError
from sanakit.layers.lora import LowRank
from sanakit.weights.checkpoint import open_checkpoint
from sanakit.weights.formats import lora_names as names
from sanakit.weights.formats.lora_names import LoRAForm, Place, Role
from sanakit.weights.formats.lora_peft import METADATA, PeftConfig, read_config
from sanakit.weights.rules import describe, listed
from sanakit.weights.safetensors import read_metadata
from sanakit.weights.tensor_files import open_files

BASE = "ss_sd_model_name"
"""The name of the base model in the header of a file without peft's configuration, as kohya's sd-scripts have it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LoRA:
    """A LoRA of a transformer. layers: by our names. form: whose names its file has. sprint: named as of Sprint.

    base: the model that it was trained on, "" if its file does not say.
    notes: sentences about what the file holds besides.
    """

    layers: Mapping[str, LowRank]
    form: str = "diffusers"
    sprint: bool = False
    base: str = ""
    notes: tuple[str, ...] = ()

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that occur, from the lowest."""
        return tuple(sorted({low.rank for low in self.layers.values()}))

    @property
    def depth(self) -> int:
        """How many blocks it speaks of."""
        return names.depth_of(self.layers)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pair:
    """What changes one published matrix: down [r, K], up [o, r]; magnitude [o] or None."""

    down: Tensor
    up: Tensor
    scale: float
    magnitude: Tensor | None


def is_lora(keys: Iterable[str]) -> bool:
    """Return whether tensors of these names are a LoRA's."""
    ends = (names.suffix_of(key) for key in keys)
    return any(end is not None and names.SUFFIXES[end] in ("down", "up") for end in ends)


def read_lora(path: Path) -> LoRA:
    """Read a file: safetensors, or one of `torch.save` with plain tensors.

    Raises WeightsError, one sentence, for a file that is missing or damaged, that isn't a LoRA of a SANA transformer,
    changes anything else besides, or has pairs that don't fit together.
    """
    tensors, metadata = _open(path)
    config, notes = _config(path, metadata)
    text = [key for key in tensors if key.startswith(names.TEXT_PREFIXES)]
    keys = [key for key in tensors if key not in set(text)]
    for key in keys:
        if what := names.unread(key):
            raise WeightsError(f"{path} holds {what} ({quoted(key)}): only LoRA, rsLoRA and DoRA are read")
    if text:
        notes += (f"{path}: {len(text)} tensors of a text encoder are passed over; SANA's is used as it is.",)
    form, found = _sorted(path, keys)
    pairs = {
        name: _pair(path, name, {role: tensors[key] for role, key in roles.items()}, config)
        for name, (_, roles) in found.items()
    }
    layers = _layers(path, {name: place for name, (place, _) in found.items()}, pairs)
    sprint = any(place.sprint or place.layer.startswith("guidance.") for place, _ in found.values())
    base = metadata.get(BASE, "") if config is None else config.base
    return LoRA(layers=layers, form=form.name, sprint=sprint, base=base, notes=notes)


def _open(path: Path) -> tuple[Mapping[str, Tensor], dict[str, str]]:
    if path.suffix.lower() in (".bin", ".pt", ".pth", ".ckpt"):
        return open_checkpoint(path, verify=True).tensors, {}
    return open_files([path]), read_metadata(path)


def _config(path: Path, metadata: Mapping[str, str]) -> tuple[PeftConfig | None, tuple[str, ...]]:
    """Return what peft says of the file: in its header, or beside one that peft itself wrote."""
    beside = path.parent / "adapter_config.json"
    if METADATA in metadata:
        config = read_config(metadata[METADATA], str(path))
    elif path.name.startswith("adapter_model.") and beside.is_file():
        config = read_config(beside.read_bytes(), str(beside))
    else:
        return None, ()
    return config, config.notes


Found = dict[str, tuple[Place, dict[Role, str]]]


def _sorted(path: Path, keys: list[str]) -> tuple[LoRAForm, Found]:
    """Return layer -> its place, and the key of each of its tensors. Raises WeightsError for what has no place."""
    form = _form(keys)
    depth = names.depth_of(key[len(form.prefix) :] for key in keys)
    known = names.places(depth)
    known = {name.replace(".", "_"): place for name, place in known.items()} if form.flat else known
    found: Found = {}
    strange = []
    for key in keys:
        suffix = names.suffix_of(key)
        name = key[len(form.prefix) : len(key) - len(suffix or "")]
        layer = names.plain_layer(name, form)
        if suffix is None or layer not in known or not key.startswith(form.prefix):
            strange.append(key)
            continue
        roles = found.setdefault(layer, (known[layer], {}))[1]
        if names.SUFFIXES[suffix] in roles:
            raise WeightsError(
                f"{path} has {quoted(roles[names.SUFFIXES[suffix]])} and {quoted(key)}, the same tensor"
            )
        roles[names.SUFFIXES[suffix]] = key
    if not found:
        what = f"it has {listed(keys)}" if keys else "it has no tensors for one"
        raise WeightsError(f"{path} isn't a LoRA of a SANA transformer: {what}")
    if strange:
        raise WeightsError(
            f"{path} changes something that isn't a layer of a SANA transformer: {listed(strange)}"
        )
    return form, found


def _form(keys: list[str]) -> LoRAForm:
    """Return the first form whose prefix most names have."""
    counts = [sum(key.startswith(form.prefix) for key in keys) if form.prefix else 0 for form in names.FORMS]
    return names.FORMS[counts.index(max(counts))] if max(counts, default=0) else names.FORMS[-1]


def _pair(path: Path, name: str, tensors: Mapping[Role, Tensor], config: PeftConfig | None) -> _Pair:
    """Raise WeightsError for a pair that is incomplete, ill-shaped, or not of finite numbers."""
    where = f"{path}: {listed([name])}"
    if not {"down", "up"} <= set(tensors):
        raise WeightsError(
            f"{where} has {' and '.join(tensors)} without its {'up' if 'down' in tensors else 'down'}"
        )
    for role, tensor in tensors.items():
        if not tensor.is_floating_point() and role != "alpha":
            raise WeightsError(f"{where}: {role} {describe(tensor)} should be of floating-point numbers")
        if not torch.isfinite(tensor.float()).all():
            raise WeightsError(f"{where}: {role} holds NaN or Inf, the file is damaged")
    down, up = tensors["down"], tensors["up"]
    fits = down.dim() in (2, 4) and up.dim() == down.dim() and down.shape[0] == up.shape[1] > 0
    if not fits or up.shape[2:].numel() != 1 or 0 in (*down.shape, *up.shape):
        raise WeightsError(f"{where}: down {describe(down)} and up {describe(up)} aren't a pair of a LoRA")
    if name.endswith(("conv_depth", "depth_conv.conv", "depth_conv_conv")) and down.shape[1:] != (1, 3, 3):
        raise WeightsError(
            f"{where} is changed by a dense convolution {list(down.shape)}, not a depthwise one"
        )
    magnitude = tensors.get("magnitude")
    if magnitude is not None:
        magnitude = _magnitudes(where, magnitude, len(up))
    scale = _scale(where, name, len(down), tensors, config)
    return _Pair(down=down.flatten(1), up=up.flatten(1), scale=scale, magnitude=magnitude)


def _magnitudes(where: str, tensor: Tensor, outputs: int) -> Tensor:
    """[o] of [o], [o, 1], [o, 1, 1, 1] or peft's [1, o, 1, 1]. Raises WeightsError for those of inputs."""
    shape = tuple(tensor.shape)
    if tensor.numel() != outputs or not (
        shape[:1] == (outputs,) or (len(shape) == 4 and shape[1] == outputs)
    ):
        raise WeightsError(
            f"{where}: magnitudes {describe(tensor)} are not one for each of {outputs} outputs, and only those are read"
        )
    return tensor.flatten()


def _scale(
    where: str, name: str, rank: int, tensors: Mapping[Role, Tensor], config: PeftConfig | None
) -> float:
    """alpha / rank, or what peft's configuration makes of it; 1 if neither is known."""
    if "alpha" in tensors:
        alpha = tensors["alpha"]
        if alpha.numel() != 1:
            raise WeightsError(f"{where}: alpha {describe(alpha)} should be one number")
        return float(alpha.float()) / rank
    return 1.0 if config is None else config.scale(name, rank)


def _layers(path: Path, places: Mapping[str, Place], pairs: Mapping[str, _Pair]) -> dict[str, LowRank]:
    groups: dict[str, dict[int, _Pair]] = {}
    counts: dict[str, int] = {}
    for name, pair in pairs.items():
        place = places[name]
        counts[place.layer] = place.of
        parts = {place.group: pair} if place.group is not None else _split(path, name, pair, place.of)
        taken = groups.setdefault(place.layer, {})
        if twice := [group for group in parts if group in taken]:
            raise WeightsError(
                f"{path} changes matrix {twice[0]} of {place.layer} twice, once as {listed([name])}"
            )
        taken |= parts
    return {layer: _join(path, layer, counts[layer], parts) for layer, parts in groups.items()}


def _split(path: Path, name: str, pair: _Pair, of: int) -> dict[int, _Pair]:
    """Split a fused matrix's pair into one per part; columns of `up` that all serve one part are dealt out."""
    if of == 1:
        return {0: pair}
    if len(pair.up) % of:
        raise WeightsError(
            f"{path}: up of {listed([name])} has {len(pair.up)} outputs, which {of} matrices can't share"
        )
    ups = pair.up.chunk(of)
    magnitudes = [None] * of if pair.magnitude is None else list(pair.magnitude.chunk(of))
    used = torch.stack([(up != 0).any(dim=0) for up in ups])  # [of, r]
    if bool((used.sum(dim=0) == 1).all()) and pair.magnitude is None:
        return {
            group: replace(pair, down=pair.down[used[group]], up=ups[group][:, used[group]])
            for group in range(of)
            if bool(used[group].any())
        }
    return {group: replace(pair, up=ups[group], magnitude=magnitudes[group]) for group in range(of)}


def _join(path: Path, layer: str, of: int, parts: Mapping[int, _Pair]) -> LowRank:
    """Return pairs of a layer's matrices as one value: lower ranks filled up with zeros, other scales multiplied in."""
    order = sorted(parts)
    pairs = [parts[group] for group in order]
    if len({(pair.down.shape[1], len(pair.up), pair.magnitude is None) for pair in pairs}) > 1:
        shapes = ", ".join(f"down {describe(pair.down)} up {describe(pair.up)}" for pair in pairs)
        raise WeightsError(f"{path}: the matrices of {layer} have pairs of other kinds: {shapes}")
    rank, scale = max(len(pair.down) for pair in pairs), pairs[0].scale
    same = all(pair.scale == scale for pair in pairs)
    ups = [pair.up if same else (pair.up.float() * pair.scale).to(pair.up.dtype) for pair in pairs]
    magnitudes = [pair.magnitude for pair in pairs if pair.magnitude is not None]
    return LowRank(
        down=torch.stack([F.pad(pair.down, (0, 0, 0, rank - len(pair.down))) for pair in pairs]),
        up=torch.stack([F.pad(up, (0, rank - up.shape[1])) for up in ups]),
        scale=scale if same else 1.0,
        magnitude=torch.stack(magnitudes) if magnitudes else None,
        groups=tuple(order),
        of=of,
    )
