"""The LoRAs of a request: a file, known by name and hash, its weight, and the blocks in which it works.

FILE                                 at weight 1
FILE:0.8                             at weight 0.8
FILE:0.8:blocks=0-9,15@0.5           in blocks 0 to 9, in block 15 at half of that, nowhere else
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sanakit.base.echo import as_utf8, quoted
from sanakit.base.errors import RequestError
from sanakit.base.files import file_sha256
from sanakit.pipeline.inputs import InputFile, recorded

if TYPE_CHECKING:
    from sanakit.layers.lora import LowRank
    from sanakit.transformer import TransformerConfig
    from sanakit.weights import LoRA

MAX_WEIGHT = 100.0
MAX_LORAS = 32
_MAX_BLOCK = 10_000
_OPTION = re.compile(r":(blocks=[^:]*|[^:/\\]*)$")
_RANGE = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?(?:@(.+))?")

Range = tuple[int, int, float]
"""First and last block, and a factor on the weight there."""


@dataclass(frozen=True, kw_only=True)
class LoRAFile(InputFile):
    """A LoRA that a request asks for.

    weight: how strongly it works; negative works the other way. blocks: where it works; none for everywhere.
    lora: what the file holds; None if only a record of it is known. plain: whether nobody gave weight or blocks.
    """

    weight: float = 1.0
    blocks: tuple[Range, ...] = ()
    plain: bool = field(default=False, compare=False, repr=False)
    lora: LoRA | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not _is_number(self.weight) or abs(self.weight) > MAX_WEIGHT:
            raise RequestError(
                f"the weight of a LoRA is a number from -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}, not {quoted(self.weight)}"
            )
        for first, last, factor in self.blocks:
            if not 0 <= first <= last <= _MAX_BLOCK or not _is_number(factor) or abs(factor) > MAX_WEIGHT:
                raise RequestError(
                    f"blocks of a LoRA look like 0-9 or 15@0.5, not {_text((first, last, factor))}"
                )

    @property
    def given(self) -> bool:
        """Whether its tensors are here."""
        return self.lora is not None

    @property
    def size(self) -> int:
        """The numbers in its tensors; 0 if they are not here."""
        lows = () if self.lora is None else self.lora.layers.values()
        return sum(low.down.numel() + low.up.numel() for low in lows)

    @classmethod
    def read(
        cls, name: str | Path, announce: Callable[[str], object] = lambda text: None, **how: Any
    ) -> Self:
        """Read a file, a folder's or a hub repository's; how: `weight` and `blocks`.

        announce: as of `resolve_lora`. Raises ModelNotFoundError, WeightsError or RequestError.
        """
        from sanakit.weights import (
            read_lora,
            resolve_lora,
        )  # brings torch, which `sanakit --help` does without

        path = resolve_lora(name, announce=announce)
        lora = read_lora(path)
        return cls(name=as_utf8(path.name), sha256=file_sha256(path), lora=lora, **how)

    @classmethod
    def parse(cls, text: str, announce: Callable[[str], object] = lambda text: None) -> Self:
        """Read what `--lora` names, such as `style.safetensors:0.8:blocks=0-9`. Raises as `read`."""
        name, how = split_options(text)
        return cls.read(name, announce, plain=not how, **how)

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Inverse of `to_json`, without the tensors. Raises RequestError."""
        fields = data if isinstance(data, Mapping) else {}
        (name, sha256), blocks = recorded(data, "a LoRA"), fields.get("blocks", [])
        if not isinstance(blocks, list) or not all(map(_is_range, blocks)):
            raise RequestError(
                f"blocks of a LoRA in a record are [first, last, factor], not {quoted(blocks)}"
            )
        ranges = tuple((first, last, float(factor)) for first, last, factor in blocks)
        return cls(name=name, sha256=sha256, weight=fields.get("weight", 1.0), blocks=ranges)

    def to_json(self) -> dict[str, Any]:
        """Name, hash, weight and blocks."""
        blocks = {"blocks": [list(one) for one in self.blocks]} if self.blocks else {}
        return {**super().to_json(), "weight": self.weight, **blocks}

    def like(self, record: LoRAFile) -> LoRAFile:
        """Return the file as another was used in a record, unless weight or blocks were given."""
        return self if not self.plain else replace(self, weight=record.weight, blocks=record.blocks)

    def factor(self, layer: str) -> float:
        """Return the weight in a layer, by its name; 0 where it does not work."""
        if not self.blocks:
            return self.weight
        match = re.match(r"blocks\.(\d+)\.", layer)
        number = -1 if match is None else int(match[1])
        return self.weight * next(
            (factor for first, last, factor in self.blocks if first <= number <= last), 0.0
        )

    def low_ranks(self) -> dict[str, LowRank]:
        """Return what it changes in each layer, at its weight. Raises RequestError if the tensors are not here."""
        if self.lora is None:
            raise RequestError(f"the LoRA {self.shown} is needed: give that file")
        factors = {name: self.factor(name) for name in self.lora.layers}
        return {name: low.scaled(factors[name]) for name, low in self.lora.layers.items() if factors[name]}


def split_options(text: str) -> tuple[str, dict[str, Any]]:
    """`FILE:0.8:blocks=0-9` -> ("FILE", {"weight": 0.8, "blocks": ...}). Raises RequestError for other endings."""
    how: dict[str, Any] = {}
    while match := _OPTION.search(text):
        option = match[1]
        if option.startswith("blocks=") and "blocks" not in how:
            how["blocks"] = _parse_blocks(option.removeprefix("blocks="))
        elif _parse_number(option) is not None and "weight" not in how:
            how["weight"] = _parse_number(option)
        else:
            raise RequestError(
                f"a LoRA looks like FILE, FILE:0.8 or FILE:0.8:blocks=0-9, and not like {quoted(text, 200)}"
            )
        text = text[: match.start()]
    return text, how


def take_loras(value: Any) -> Any:
    """Files, paths or texts of `--lora`, one or several, as a tuple of `LoRAFile`. Raises as `LoRAFile.read`."""
    if isinstance(value, str | Path | LoRAFile):
        value = [value]
    if not isinstance(value, Iterable):
        raise RequestError(f"loras are files with their weights, not {quoted(value)}")
    return tuple(one if isinstance(one, LoRAFile) else LoRAFile.parse(str(one)) for one in value)


def check_loras(name: str, value: object) -> None:
    """Refuse what isn't a tuple of a few `LoRAFile`."""
    if not isinstance(value, tuple) or not all(isinstance(one, LoRAFile) for one in value):
        raise RequestError(f"{name} must be LoRA files, not {quoted(value)}")
    if len(value) > MAX_LORAS:
        raise RequestError(
            f"{len(value)} LoRAs are more than {MAX_LORAS}: merge some of them into a model first"
        )


def encode_loras(loras: tuple[LoRAFile, ...]) -> list[dict[str, Any]]:
    """As JSON holds them."""
    return [one.to_json() for one in loras]


def decode_loras(data: object) -> tuple[LoRAFile, ...]:
    """Inverse of `encode_loras`, without the tensors. Raises RequestError."""
    if not isinstance(data, list):
        raise RequestError(f"loras in a record are a list, not {quoted(data)}")
    return tuple(LoRAFile.from_json(one) for one in data)


def check_fit(loras: Iterable[LoRAFile], config: TransformerConfig) -> None:
    """Raise RequestError, with the file's name, for a LoRA that is for another transformer or changes nothing."""
    loras = tuple(loras)
    if not loras:
        return
    import torch

    from sanakit.adapt.lora import check_fit as check_layers
    from sanakit.transformer import SanaTransformer

    with torch.device("meta"):
        model = SanaTransformer(config)
    for one in loras:
        lows = one.low_ranks()
        if not lows and one.weight:
            raise RequestError(
                f"{quoted(one.name)} changes nothing in blocks {', '.join(map(_text, one.blocks))}"
            )
        try:
            check_layers(model, lows)
        except RequestError as error:
            raise RequestError(f"{quoted(one.name)} does not fit: {error}") from None


def _parse_blocks(text: str) -> tuple[Range, ...]:
    """`0-9,15@0.5` -> ((0, 9, 1.0), (15, 15, 0.5)). Raises RequestError."""
    ranges = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        factor = None if match is None else _parse_number(match[3] or "1")
        if match is None or factor is None:
            raise RequestError(f"blocks of a LoRA look like 0-9 or 0-9,15@0.5, not {quoted(text)}")
        ranges.append((int(match[1]), int(match[2] or match[1]), factor))
    return tuple(ranges)


def _parse_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_range(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(edge, int) and not isinstance(edge, bool) for edge in value[:2])
        and _is_number(value[2])
    )


def _text(blocks: Range) -> str:
    first, last, factor = blocks
    return f"{first}-{last}" + ("" if factor == 1 else f"@{factor:g}")
