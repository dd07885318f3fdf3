"""Parquet files: tables that name pictures, and pictures stored in a column, as in the data sets of hubs.

image: {bytes: binary, path: string}, or binary     keys  train.parquet/0000000, train.parquet/0000001, ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sanakit.base.errors import DataError, PictureError
from sanakit.data.captions import TEXT_FIELDS, CaptionError, captions_of
from sanakit.data.items import MOST_BYTES
from sanakit.data.regular import open_regular
from sanakit.data.set_builder import SetBuilder
from sanakit.data.tables import FILE_FIELDS, Record, names_picture, take_records

_ROWS = 64  # read together: a row may hold a picture of megabytes
_PICTURE_FIELDS = ("image", "img", "picture", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes")
_KEPT_GROUPS = 2
_LARGEST_GROUP = (
    4 * 2**30
)  # bytes of a column in a group of rows, which is read whole for each of its pictures


@dataclass(frozen=True, slots=True)
class ParquetCell:
    """A picture in a column of a Parquet file: row `row` of the group of rows `group`."""

    path: Path
    column: str
    group: int
    row: int

    def read(self, most: int | None = None) -> bytes:
        """Return the bytes, or the first `most` of them. Raises PictureError."""
        try:
            facts = self.path.stat()
            column = _column(self.path, (facts.st_mtime_ns, facts.st_size), self.column, self.group)
            found = _bytes_of(column[self.row].as_py())
        except PictureError:
            raise
        except Exception as error:  # pyarrow raises many types of its own
            raise PictureError(f"{self.path} can't be read: {_reason(error)}") from None
        if found is None:
            raise PictureError("its row holds no picture")
        if len(found) > MOST_BYTES:
            raise PictureError(f"it has {len(found):,} bytes, more than {MOST_BYTES:,}")
        return found if most is None else found[:most]

    def read_end(self, most: int) -> bytes:
        """Return the last `most` bytes. Raises PictureError."""
        return self.read()[-most:]


def read_parquet(path: Path, shown: str, folder: str, builder: SetBuilder) -> None:
    """Add the pictures and captions of a file to the builder. Raises DataError if pyarrow is missing."""
    library = _library(shown)
    try:
        with open_regular(path) as handle, library.ParquetFile(handle) as file:
            columns = {field.name: field.type for field in file.schema_arrow}
            picture = _picture_column(columns)
            if picture is not None:
                _read_pictures(file, path, shown, folder, picture, builder)
            elif set(columns) & {"key", *FILE_FIELDS}:
                take_records(_records(file, _wanted(columns)), shown, folder, builder)
            else:
                text = f"{shown} has no column 'key' or 'file_name' that names pictures, and none that holds them"
                builder.add_fault(shown, "record", text)
    except DataError:
        raise
    except Exception as error:  # pyarrow raises many types, and a broken file can cause any error
        builder.add_fault(shown, "record", f"{shown} can't be read as a Parquet file: {_reason(error)}")


def _read_pictures(file: Any, path: Path, shown: str, folder: str, picture: str, builder: SetBuilder) -> None:
    """Take every row as a picture; a row that has only a path refers to a file beside the table."""
    columns = {field.name: field.type for field in file.schema_arrow}
    wanted = [picture, *(name for name in _wanted(columns) if name != picture)]
    named: list[Record] = []
    number = 0
    for group in range(file.num_row_groups):
        _check_size(file, group)
        for row, (record, errors) in enumerate(_rows(file, wanted, group)):
            key, name = f"{shown}/{number:07d}", f"row {number} of {shown}"
            number += 1
            for error in errors:
                builder.add_fault(key, error.kind, f"{name}: {error}")
            value, rest = record[picture], {field: record[field] for field in wanted if field != picture}
            if _bytes_of(value) is None:
                elsewhere = value.get("path") if isinstance(value, Mapping) else None
                named.append({"file_name": elsewhere, **rest})
                continue
            builder.add_picture(key, ParquetCell(path, picture, group, row), name)
            _add_captions(key, rest, name, builder)
    lacking = sum(not names_picture(record) for record in named if not isinstance(record, CaptionError))
    if lacking:
        builder.add_fault(shown, "corrupt", f"{lacking} rows of {shown} hold no picture", lacking)
    take_records(
        (one for one in named if isinstance(one, CaptionError) or names_picture(one)), shown, folder, builder
    )


def _add_captions(key: str, record: Mapping[str, Any], name: str, builder: SetBuilder) -> None:
    try:
        builder.add_captions(key, captions_of(record, name, builder.reporter(key)))
    except CaptionError as error:
        builder.add_fault(key, error.kind, str(error))


def _records(file: Any, columns: list[str]) -> Iterator[Record]:
    for group in range(file.num_row_groups):
        for record, errors in _rows(file, columns, group):
            yield from errors
            yield record


def _rows(file: Any, columns: list[str], group: int) -> Iterator[tuple[dict[str, Any], list[CaptionError]]]:
    """Yield each row's record, and its errors: values that Python can't represent are left out."""
    for batch in file.iter_batches(batch_size=_ROWS, row_groups=[group], columns=columns):
        values = dict(zip(batch.schema.names, map(batch.column, batch.schema.names), strict=True))
        for row in range(batch.num_rows):
            record: dict[str, Any] = {}
            errors: list[CaptionError] = []
            for name, value in values.items():
                try:
                    record[name] = value[row].as_py()
                except UnicodeDecodeError as error:
                    record[name] = None
                    text = f"{name!r} of a row is not UTF-8 at its byte {error.start}"
                    errors.append(CaptionError("encoding", text))
                except Exception as error:  # dates beyond year 9999, unknown time zones, ...
                    record[name] = None
                    errors.append(
                        CaptionError("record", f"{name!r} of a row can't be read ({_reason(error)})")
                    )
            yield record, errors


def _picture_column(columns: Mapping[str, Any]) -> str | None:
    """Return the column that holds encoded pictures: bytes, or {bytes, path} under any name."""
    import pyarrow.types as types

    for name, kind in columns.items():
        if types.is_struct(kind) and any(
            part.name == "bytes" and (types.is_binary(part.type) or types.is_large_binary(part.type))
            for part in (kind.field(index) for index in range(kind.num_fields))
        ):
            return name
    plain = [name for name, kind in columns.items() if types.is_binary(kind) or types.is_large_binary(kind)]
    return next((name for name in _PICTURE_FIELDS if name in plain), None)


def _wanted(columns: Mapping[str, Any]) -> list[str]:
    """Return the columns of captions and names, without those that hold whole pictures."""
    known = ("key", "score", "source", *FILE_FIELDS, *TEXT_FIELDS)
    return [name for name, kind in columns.items() if name in known and "binary" not in str(kind)]


@lru_cache(maxsize=_KEPT_GROUPS)
def _column(path: Path, state: tuple[int, int], column: str, group: int) -> Any:
    """Return the pictures of a group of rows. state: of the file, so that a changed one is read anew."""
    with open_regular(path) as handle, _library(str(path)).ParquetFile(handle) as file:
        _check_size(file, group)
        return file.read_row_group(group, columns=[column]).column(0)


def _check_size(file: Any, group: int) -> None:
    size = file.metadata.row_group(group).total_byte_size
    if size > _LARGEST_GROUP:
        raise PictureError(f"a row group has {size:,} bytes: write it with fewer rows per group")


def _bytes_of(value: Any) -> bytes | None:
    found = value.get("bytes") if isinstance(value, Mapping) else value
    return found if isinstance(found, bytes) and found else None


def _library(shown: str) -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise DataError(f'{shown} needs pyarrow to be read: pip install "sanakit[data]"') from None
    return pyarrow.parquet


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
