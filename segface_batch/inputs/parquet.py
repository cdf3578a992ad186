"""Images inside Parquet files: the column that holds them, the columns beside it, and their bytes.

An image column is binary, or a struct with `bytes` (and `path`) as Hugging Face's `Image` feature stores it.  Planning
reads the footer and the small columns.  To read some images of a row group, pyarrow must read the group from its start,
because it does not jump to a page.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from segface_batch.inputs.image import Cell
from segface_batch.storage.ranged import Ranged
from segface_batch.storage.redact import redacted

#: Columns that name an image.  The first that a file has counts; without any, the struct's path names it.
ID_COLUMNS = ("image_id", "key", "__key__")

#: The key of the struct's path among a row's values; no column has this name.
PATH = "\0path"

#: Bytes of one request for images: 100 images of 80 kB.
_READ_BYTES = 8 * 2**20
#: Images that are in memory twice while they are read.
_READ_ROWS = 32

#: Each unit of a row group reads it from its start.  In a group of 2 GiB, the last of 32 units reads all of it.
MAX_GROUP_BYTES = 2 * 2**30


class Row(NamedTuple):
    """A row with an image, or null: its place, its number in the file, and its values in the small columns."""

    cell: Cell
    n_bytes: int
    number: int
    values: dict[str, Any]


def image_column(schema: pa.Schema, wanted: str | None, place: str) -> str | None:
    """The `wanted` image column, or else the only one; None if there is none.  ValueError if there are several."""
    found = [field.name for field in schema if _is_image(field.type)]
    if wanted is not None:
        return wanted if wanted in found else None
    if len(found) > 1:
        raise ValueError(f"{place} has several columns that may be images: {', '.join(found)}; give --image-column")
    return found[0] if found else None


def open_file(place: str, n_bytes: int, read_bytes: int = 0) -> pq.ParquetFile:
    """Open a file and read its footer.  pyarrow's errors if it is not a Parquet file."""
    return pq.ParquetFile(
        Ranged(place, n_bytes),  # pyright: ignore[reportArgumentType]
        buffer_size=read_bytes,
        pre_buffer=False,  # would read whole row groups ahead
        page_checksum_verification=True,
    )


def read_rows(file: pq.ParquetFile, place: str, file_bytes: int, column: str, names: Sequence[str]) -> Iterator[Row]:
    """Every row of an image column, with its values in the columns `names` and, as PATH, the struct's path.

    ValueError for a row group that is too large to be read unit by unit.
    """
    field = file.schema_arrow.field(column)
    is_struct = pa.types.is_struct(field.type)
    leaf = f"{column}.bytes" if is_struct else column
    paths = [file.schema.column(index).path for index in range(len(file.schema))]
    small = [*names]
    if is_struct and f"{column}.path" in paths:
        small.append(f"{column}.path")
    number = 0
    for group in range(file.num_row_groups):
        meta = file.metadata.row_group(group)
        n_bytes = meta.column(paths.index(leaf)).total_uncompressed_size
        check_group(place, group, n_bytes)
        mean = n_bytes // max(1, meta.num_rows)
        values = file.read_row_group(group, columns=small, use_threads=False) if small else None
        if values is not None and small[-1] == f"{column}.path":
            (path,) = values[column].combine_chunks().flatten()  # null in a null struct
            values = values.drop_columns(column).append_column(PATH, path)
        columns = {name: values[name].to_pylist() for name in values.column_names} if values is not None else {}
        for row in range(meta.num_rows):
            of_row = {name: cells[row] for name, cells in columns.items()}
            yield Row(Cell(leaf, group, row, file_bytes), mean, number, of_row)
            number += 1


def check_group(place: str, group: int, n_bytes: int) -> None:
    if n_bytes > MAX_GROUP_BYTES:
        raise ValueError(
            f"{redacted(place)}: row group {group} has {n_bytes / 1e9:.1f} GB of images, which every unit of it would "
            "read again; rewrite the file with row_group_size=1000 or less"
        )


def read(place: str, cells: Sequence[Cell]) -> list[bytes | None]:
    """The bytes of cells in one row group, whose rows ascend; None for null.

    OSError with ESTALE if the file no longer has these cells; pyarrow's errors if it is damaged.
    """
    column, group, _, file_bytes = cells[0]
    file = open_once(place, file_bytes)
    if group >= file.num_row_groups or cells[-1].row >= file.metadata.row_group(group).num_rows:
        raise OSError(errno.ESTALE, "it has fewer rows than when it was planned", place)
    wanted = {cell.row for cell in cells}
    found: list[bytes | None] = []
    at = 0
    for batch in file.iter_batches(_READ_ROWS, row_groups=[group], columns=[column], use_threads=False):
        values = batch.column(0)
        if pa.types.is_struct(values.type):
            values = pa.StructArray.flatten(values)[0]  # a null struct has null bytes
        found += [values[row - at].as_py() for row in range(at, at + len(values)) if row in wanted]
        at += len(values)
        if at > cells[-1].row:
            break
    return found


@lru_cache(maxsize=4)
def open_once(place: str, file_bytes: int) -> pq.ParquetFile:
    """The open file.  A process works on the units of a file in turn and reads its footer only once."""
    return open_file(place, file_bytes, _READ_BYTES)


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)
    return _is_binary(kind)


def is_text(kind: pa.DataType) -> bool:
    """True for text, dictionary-encoded or not."""
    plain = plain_type(kind)
    return pa.types.is_string(plain) or pa.types.is_large_string(plain) or pa.types.is_string_view(plain)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values of a dictionary; any other type unchanged."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
