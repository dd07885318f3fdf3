"""Checkpoint formats as tables: each row says how one of our tensors is stored in a foreign file, and has an inverse.

    Rename   one tensor, another name
    Join     several of theirs, stacked on dimension 0, are one of ours
    Squeeze  their 1x1 convolution [O, I, 1, 1] is our linear layer [O, I]
    Drop     theirs only, never read and never written; the reason is part of the row

A table names every key of both sides exactly once, so loading is strict and `theirs -> ours -> theirs` is bit-equal.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from sanakit.base.errors import WeightsError
from sanakit.base.units import dtype_name


@dataclass(frozen=True)
class Rename:
    """Their tensor is ours as it is."""

    ours: str
    theirs: str

    @property
    def their_keys(self) -> tuple[str, ...]:
        """The keys of their file that this row speaks for."""
        return (self.theirs,)

    def to_ours(self, parts: tuple[Tensor, ...]) -> Tensor:
        """(theirs,) -> ours, the same storage."""
        return parts[0]

    def to_theirs(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Ours -> (theirs,), the same storage."""
        return (tensor,)


@dataclass(frozen=True)
class Join:
    """Ours is theirs stacked on dimension 0 in the order given: q, k, v -> qkv."""

    ours: str
    theirs: tuple[str, ...]

    @property
    def their_keys(self) -> tuple[str, ...]:
        """The keys of their file that this row speaks for."""
        return self.theirs

    def to_ours(self, parts: tuple[Tensor, ...]) -> Tensor:
        """Of n x [O, ...] one [n*O, ...]. Raises WeightsError when shapes or dtypes differ."""
        if len({(part.shape, part.dtype) for part in parts}) > 1:
            found = ", ".join(f"{key} {describe(part)}" for key, part in zip(self.theirs, parts, strict=True))
            raise WeightsError(f"{self.ours} is stacked from tensors that must be alike, but found {found}")
        return torch.cat(parts)

    def to_theirs(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """[n*O, ...] -> n x [O, ...] views. Raises WeightsError when dimension 0 does not divide."""
        count = len(self.theirs)
        if tensor.dim() == 0 or tensor.shape[0] % count:
            raise WeightsError(f"{self.ours} {describe(tensor)} can't be cut into {count} equal parts")
        return tuple(tensor.chunk(count))


@dataclass(frozen=True)
class Squeeze:
    """Their 1x1 convolution is our linear layer: the same numbers, two dimensions less."""

    ours: str
    theirs: str

    @property
    def their_keys(self) -> tuple[str, ...]:
        """The keys of their file that this row speaks for."""
        return (self.theirs,)

    def to_ours(self, parts: tuple[Tensor, ...]) -> Tensor:
        """([O, I, 1, 1],) -> [O, I], the same storage. Raises WeightsError for any other shape."""
        tensor = parts[0]
        if tensor.dim() != 4 or tensor.shape[2:] != (1, 1):
            raise WeightsError(
                f"{self.theirs} {describe(tensor)} should be a 1x1 convolution [out, in, 1, 1]"
            )
        return tensor.reshape(tensor.shape[:2])

    def to_theirs(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """[O, I] -> ([O, I, 1, 1],), the same storage. Raises WeightsError for any other shape."""
        if tensor.dim() != 2:
            raise WeightsError(f"{self.ours} {describe(tensor)} should be a matrix [out, in]")
        return (tensor.reshape(*tensor.shape, 1, 1),)


@dataclass(frozen=True)
class Drop:
    """A tensor of theirs that we have no use for: may be present, is never written.

    trained: nothing gives it back, so a conversion that leaves it out says so.
    """

    theirs: str
    reason: str
    trained: bool = False

    @property
    def their_keys(self) -> tuple[str, ...]:
        """The keys of their file that this row speaks for."""
        return (self.theirs,)


Row = Rename | Join | Squeeze | Drop


def affine(ours: str, theirs: str) -> tuple[Rename, Rename]:
    """Return the two rows of a layer with weight and bias."""
    return Rename(f"{ours}.weight", f"{theirs}.weight"), Rename(f"{ours}.bias", f"{theirs}.bias")


def under(ours: str, theirs: str, rows: Iterable[Row]) -> tuple[Row, ...]:
    """Return the same rows below a prefix on each side (both without the dot)."""
    return tuple(_renamed(row, lambda key: f"{ours}.{key}", lambda key: f"{theirs}.{key}") for row in rows)


def expand(rows: Iterable[Row], **ranges: Iterable[int]) -> tuple[Row, ...]:
    """Fill `{i}`-like fields of both sides with every combination of the ranges: `expand(rows, i=range(20))`."""
    rows, filled = tuple(rows), list[Row]()
    for values in product(*ranges.values()):
        fields = {name: str(value) for name, value in zip(ranges, values, strict=True)}

        def fill(key: str, fields: Mapping[str, str] = fields) -> str:
            return key.format_map(fields)

        filled.extend(_renamed(row, fill, fill) for row in rows)
    return tuple(filled)


def _renamed(row: Row, ours: Callable[[str], str], theirs: Callable[[str], str]) -> Row:
    """Return the row with a function applied to the names of each side."""
    if isinstance(row, Drop):
        return Drop(theirs(row.theirs), row.reason, row.trained)
    if isinstance(row, Join):
        return Join(ours(row.ours), tuple(theirs(key) for key in row.theirs))
    return type(row)(ours(row.ours), theirs(row.theirs))


class Table:
    """All rows of one format for one configuration.

    Raises ValueError at once when a key of either side is named twice: such a table is a programming error.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = tuple(rows)
        self.dropped = {row.theirs: row.reason for row in self.rows if isinstance(row, Drop)}
        self.kept = tuple(row for row in self.rows if not isinstance(row, Drop))
        self.our_keys = tuple(row.ours for row in self.kept)
        self.their_keys = tuple(key for row in self.kept for key in row.their_keys)
        for side in (self.our_keys, (*self.their_keys, *self.dropped)):
            if len(set(side)) != len(side):
                raise ValueError(
                    f"keys named twice: {listed(sorted({key for key in side if side.count(key) > 1}))}"
                )

    def lost(self, keys: Collection[str]) -> list[str]:
        """Sentences about the trained tensors among their keys that are left out."""
        rows = [row for row in self.rows if isinstance(row, Drop) and row.trained and row.theirs in keys]
        return [
            f"{listed([row.theirs for row in rows if row.reason == reason])} left out: {reason}."
            for reason in dict.fromkeys(row.reason for row in rows)
        ]

    def check_theirs(self, keys: Collection[str], where: str) -> None:
        """Raise WeightsError unless `keys` are exactly theirs (dropped ones may be there or not)."""
        check_keys(keys, self.their_keys, where, optional=self.dropped)

    def stream_ours(
        self, theirs: Mapping[str, Tensor], where: str = "the weights"
    ) -> Iterator[tuple[str, Tensor]]:
        """Our (name, tensor) pairs one by one; each of theirs is fetched only when its row is due.

        Raises WeightsError for missing, unexpected or ill-shaped tensors; key errors come before any tensor is read.
        """
        self.check_theirs(theirs.keys(), where)
        for row in self.kept:
            yield row.ours, row.to_ours(tuple(theirs[key] for key in row.their_keys))

    def stream_theirs(
        self, ours: Mapping[str, Tensor], where: str = "the model"
    ) -> Iterator[tuple[str, Tensor]]:
        """Their (name, tensor) pairs one by one, as views of ours if possible. Raises like `stream_ours`."""
        check_keys(ours.keys(), self.our_keys, where)
        for row in self.kept:
            yield from zip(row.their_keys, row.to_theirs(ours[row.ours]), strict=True)

    def to_ours(self, theirs: Mapping[str, Tensor], where: str = "the weights") -> dict[str, Tensor]:
        """Everything of `stream_ours`."""
        return dict(self.stream_ours(theirs, where))

    def to_theirs(self, ours: Mapping[str, Tensor], where: str = "the model") -> dict[str, Tensor]:
        """Everything of `stream_theirs`."""
        return dict(self.stream_theirs(ours, where))


def check_keys(
    found: Collection[str], wanted: Collection[str], where: str, *, optional: Collection[str] = ()
) -> None:
    """Raise WeightsError, one sentence, unless the keys agree."""
    present, required = set(found), set(wanted)
    missing = [key for key in wanted if key not in present]
    surplus = [key for key in found if key not in required and key not in optional]
    problems = [f"lacks {listed(missing)}"] if missing else []
    problems += [f"has unexpected {listed(surplus)}"] if surplus else []
    if problems:
        raise WeightsError(f"{where} does not fit the configuration: it {' and '.join(problems)}")


def listed(names: Collection[str], limit: int = 3) -> str:
    """Return the first names and how many more there are: `a, b, c and 4 more`. Names of a damaged file are escaped."""
    shown = ", ".join(name[:120].encode("unicode_escape").decode() for name in list(names)[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown


def describe(tensor: Tensor) -> str:
    """`[2, 3] float32`, for messages."""
    return f"{list(tensor.shape)} {dtype_name(tensor.dtype)}"
