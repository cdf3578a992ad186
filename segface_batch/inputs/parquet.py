"""Images inside Parquet files: which column has them, what the file says about each, and their bytes.

A column of images is binary, or a struct with `bytes` (and `path`) as Hugging Face's `Image` feature stores it.
Planning reads the footer and the small columns.  Of the images' column a part can only be had by reading its row
group from the start, because pyarrow does not jump to a page.
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

#: Columns that name an image, the first that a file has; else the struct's path does.
ID_COLUMNS = ("image_id", "key", "__key__")

#: What the struct's path is called among a row's values; no column is called so.
PATH = "\0path"

#: A request for images; a row group of 100 images of 80 kB is one.
_READ_BYTES = 8 * 2**20
#: Images in memory twice at the same moment while they are read.
_READ_ROWS = 32

#: Each unit of a row group reads it from the start: of 2 GiB the last of 32 units reads all.
MAX_GROUP_BYTES = 2 * 2**30


class Row(NamedTuple):
    """A row that has, or should have, an image: where, its number in the file, and the small columns asked for."""

    cell: Cell
    n_bytes: int
    number: int
    values: dict[str, Any]


def image_column(schema: pa.Schema, wanted: str | None, place: str) -> str | None:
    """The column with the images, None if there is none; ValueError for several of which none is `wanted`."""
    found = [field.name for field in schema if _is_image(field.type)]
    if wanted is not None:
        return wanted if wanted in found else None
    if len(found) > 1:
        raise ValueError(f"{place} has several columns that may be images: {', '.join(found)}; give --image-column")
    return found[0] if found else None


def opened(place: str, n_bytes: int, read_bytes: int = 0) -> pq.ParquetFile:
    """The file with its footer read; pyarrow's errors where it is none."""
    return pq.ParquetFile(
        Ranged(place, n_bytes),  # pyright: ignore[reportArgumentType]
        buffer_size=read_bytes,
        pre_buffer=False,  # would read whole row groups ahead
        page_checksum_verification=True,
    )


def rows(file: pq.ParquetFile, place: str, file_bytes: int, column: str, names: Sequence[str]) -> Iterator[Row]:
    """Every row of the images' column, with the columns of those names and, as PATH, the path in the struct.

    ValueError for a row group that is too large to be read in parts.
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
            f"{redacted(place)}: row group {group} has {n_bytes / 1e9:.1f} GB of images, which would be read again "
            "and again; write the file anew with row_group_size=1000 or less"
        )


def read(place: str, cells: Sequence[Cell]) -> list[bytes | None]:
    """The bytes in cells of one row group, in their order (rows ascending); None for null.

    OSError with ESTALE where the file has no such cells any more; pyarrow's errors where it is damaged.
    """
    column, group, _, file_bytes = cells[0]
    file = kept(place, file_bytes)
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
def kept(place: str, file_bytes: int) -> pq.ParquetFile:
    """A process reads the units of a file one after another, and the footer once."""
    return opened(place, file_bytes, _READ_BYTES)


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)
    return _is_binary(kind)


def is_text(kind: pa.DataType) -> bool:
    """True for text, encoded as a dictionary too."""
    plain = plain_type(kind)
    return pa.types.is_string(plain) or pa.types.is_large_string(plain) or pa.types.is_string_view(plain)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values, which a dictionary encodes."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
