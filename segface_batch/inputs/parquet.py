"""Images inside Parquet files: the column that holds them, the columns beside it, and their bytes.

An image column is binary, or a struct with `bytes` (and `path`) as Hugging Face's `Image` feature stores it.  Planning
reads the footer and the small columns.  To read some images of a row group, pyarrow must read the group from its start,
because it does not jump to a page.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterable, Iterator, Sequence
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

#: A key in the metadata of the parts that we write ourselves (output.schema): masks are no input.
_OWN = b"segface_batch"

#: Bytes of one request for images: 100 images of 80 kB.
_READ_BYTES = 8 * 2**20
#: Images that are in memory twice while they are read.
_READ_ROWS = 32

#: Each unit of a row group reads it from its start.  In a group of 2 GiB, the last of 32 units reads all of it.
MAX_GROUP_BYTES = 2 * 2**30


class Damaged(pa.ArrowInvalid):
    """Not a Parquet file, or one that cannot be read to its end."""


class Row(NamedTuple):
    """A row with an image, or null: its place, its number in the file, and its values in the small columns.

    `by_path` where the row has a path in place of the bytes.
    """

    cell: Cell
    n_bytes: int
    number: int
    values: dict[str, Any]
    by_path: bool


def image_column(schema: pa.Schema, wanted: str | None, place: str) -> str | None:
    """The `wanted` image column, or else the only one; None if there is none, and for a part of an output of ours,
    unless its masks are wanted.

    ValueError if there are several.
    """
    if wanted is None and _OWN in (schema.metadata or {}):
        return None
    found = [field.name for field in schema if _is_image(field.type)]
    if wanted is not None:
        return wanted if wanted in found else None
    found = [name for name in found if name not in (*ID_COLUMNS, "uri")]  # text that was written as bytes
    if len(found) > 1:
        raise ValueError(f"{place} has several columns that may be images: {', '.join(found)}; give --image-column")
    return found[0] if found else None


def open_file(place: str, n_bytes: int, read_bytes: int = 0) -> pq.ParquetFile:
    """Open a file and read its footer.  `Damaged` if it is not a Parquet file."""
    with finding_damage(place, "is not a Parquet file"):
        file = pq.ParquetFile(
            Ranged(place, n_bytes),  # pyright: ignore[reportArgumentType]
            buffer_size=read_bytes,
            pre_buffer=False,  # would read whole row groups ahead
            page_checksum_verification=True,
        )
        if not file.schema_arrow.names:
            raise Damaged("it has no columns")
        return file


@contextlib.contextmanager
def finding_damage(place: str, what: str = "is damaged") -> Iterator[None]:
    """`Damaged`, in one line, for whatever Arrow says of a damaged file; storage's errors pass."""
    try:
        yield
    except (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError, LookupError) as error:
        if isinstance(error, OSError) and error.errno:  # Arrow's own have no number
            raise
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise Damaged(f"{redacted(place)} {what}: {reason}") from None


def check_columns(schema: pa.Schema, names: Iterable[str], place: str) -> None:
    """ValueError for a column that is needed and there twice."""
    for name in names:
        if schema.names.count(name) > 1:
            raise ValueError(f"{redacted(place)} has {schema.names.count(name)} columns '{name}'; rename all but one")


def values_of(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column as Python has them; text that is not UTF-8 has \\xNN in it."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        plain = [chunk.dictionary_decode() if pa.types.is_dictionary(chunk.type) else chunk for chunk in column.chunks]
        return [text(value) for value in pa.chunked_array(plain).cast(pa.large_binary()).to_pylist()]
    except (ValueError, OverflowError) as error:  # such as a day after the year 9999
        raise ValueError(
            f"a value of type {column.type} cannot be read ({error}); convert the column to text"
        ) from None


def text(value: Any) -> str | None:
    """A value as text, bytes too; None for null and for nothing."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return None if value is None or value == "" else str(value)


def read_rows(file: pq.ParquetFile, place: str, file_bytes: int, column: str, names: Sequence[str]) -> Iterator[Row]:
    """Every row of an image column, with its values in the columns `names` and, as PATH, the struct's path.

    ValueError for a row group that is too large to be read unit by unit; `Damaged` where the file is.
    """
    field = file.schema_arrow.field(column)
    is_struct = pa.types.is_struct(field.type)
    leaf = f"{column}.bytes" if is_struct else column
    leaves = [file.schema.column(index).path for index in range(len(file.schema))]
    path = f"{column}.path" if is_struct and f"{column}.path" in leaves else None
    number = 0
    with finding_damage(place):
        for group in range(file.num_row_groups):
            _check_chunk(file, place, file_bytes, group, leaf)
            meta = file.metadata.row_group(group)
            rows, chunk = meta.num_rows, meta.column(leaves.index(leaf))
            n_bytes = chunk.total_uncompressed_size
            if chunk.num_values != rows or n_bytes < 0:
                raise Damaged("its footer contradicts itself")
            check_group(place, group, n_bytes)
            columns, by_path = {}, frozenset()
            if names or path:
                small = file.read_row_group(group, columns=[*names, *filter(None, [path])], use_threads=False)
                if small.num_rows != rows:
                    raise Damaged("its columns differ in length")
                columns = {name: values_of(small[name]) for name in names}
                if path:
                    (paths,) = small[column].combine_chunks().flatten()  # null in a null struct
                    columns[PATH] = values_of(pa.chunked_array([paths]))
                    by_path = _only_paths(
                        place, file_bytes, group, leaf, chunk, columns[PATH], small[column].null_count
                    )
            for row in range(rows):
                of_row = {name: cells[row] for name, cells in columns.items()}
                yield Row(Cell(leaf, group, row, file_bytes), n_bytes // rows, number, of_row, row in by_path)
                number += 1


def _only_paths(
    place: str,
    file_bytes: int,
    group: int,
    leaf: str,
    chunk: pq.ColumnChunkMetaData,
    paths: Sequence[str | None],
    null_structs: int,
) -> frozenset[int]:
    """The rows of a group that have a path and no bytes, as `datasets` writes images that it does not embed.

    The footer counts the nulls among the bytes; only where some, but not all, of the rows have bytes are these read.
    """
    found = frozenset(row for row, path in enumerate(paths) if path)
    if not found:
        return found
    counts = chunk.statistics
    if counts is not None and counts.has_null_count:
        nulls = counts.null_count
    else:  # an image is larger than a byte
        nulls = len(paths) if chunk.total_uncompressed_size < len(paths) else 0
    if nulls in (0, null_structs):
        return frozenset()
    if nulls == len(paths):
        return found
    batches = open_once(place, file_bytes).iter_batches(
        _READ_ROWS, row_groups=[group], columns=[leaf], use_threads=False
    )
    is_null = [null for batch in batches for null in _leaf(batch.column(0)).is_null().to_pylist()]
    return frozenset(row for row in found if is_null[row])


def _leaf(values: pa.Array) -> pa.Array:
    """The bytes of an image column; a null struct has null bytes."""
    return pa.StructArray.flatten(values)[0] if pa.types.is_struct(values.type) else values


class _Unread(Ranged):
    """A file whose footer is known and whose data is not read."""

    def read(self, size: int = -1) -> bytes:
        raise OSError(errno.ECANCELED, "not read")


def _check_chunk(file: pq.ParquetFile, place: str, file_bytes: int, group: int, leaf: str) -> None:
    """`Damaged` where the footer describes a column wrongly: pyarrow's `RowGroupMetaData.column` would end the process
    (a C++ exception that it does not catch), its readers say so.
    """
    source: Any = _Unread(place, file_bytes)
    try:
        pq.ParquetFile(source, metadata=file.metadata, pre_buffer=False).read_row_group(
            group, [leaf], use_threads=False
        )
    except OSError as error:
        if error.errno != errno.ECANCELED:
            raise


def check_group(place: str, group: int, n_bytes: int) -> None:
    if n_bytes > MAX_GROUP_BYTES:
        raise ValueError(
            f"{redacted(place)}: row group {group} has {n_bytes / 1e9:.1f} GB of images, which every unit of it would "
            "read again; rewrite the file with row_group_size=1000 or less"
        )


def read(place: str, cells: Sequence[Cell]) -> list[bytes | None]:
    """The bytes of cells in one row group, whose rows ascend; None for null.

    OSError with ESTALE if the file no longer has these cells; `Damaged` if it is.
    """
    column, group, _, file_bytes = cells[0]
    file = open_once(place, file_bytes)
    if group >= file.num_row_groups or cells[-1].row >= file.metadata.row_group(group).num_rows:
        raise OSError(errno.ESTALE, "it has fewer rows than when it was planned", place)
    wanted = {cell.row for cell in cells}
    found: list[bytes | None] = []
    at = 0
    with finding_damage(place):
        for batch in file.iter_batches(_READ_ROWS, row_groups=[group], columns=[column], use_threads=False):
            values = _leaf(batch.column(0))
            found += [values[row - at].as_py() for row in range(at, at + len(values)) if row in wanted]
            at += len(values)
            if at > cells[-1].row:
                break
    if len(found) != len(cells):
        raise Damaged(f"{redacted(place)} is damaged: its row group {group} ends early")
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
    """True for text, and for bytes, as which some programs write it, dictionary-encoded or not."""
    plain = plain_type(kind)
    is_string = pa.types.is_string(plain) or pa.types.is_large_string(plain) or pa.types.is_string_view(plain)
    return is_string or _is_binary(plain)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values of a dictionary; any other type unchanged."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
