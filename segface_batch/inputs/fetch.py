"""A planned unit becomes one row that holds its encoded pictures, or why a picture could not be had."""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from segface_batch import storage
from segface_batch.inputs import plan

#: Waiting for a disk or a network costs no CPU.
THREADS = 16

#: A picture within `max_pixels` is smaller in every format that is read.
MAX_BYTES = 512 * 2**20

#: Why a picture could not be had, besides decode's `too_large`.
REASONS = {
    "missing": "no file or object of that name",
    "forbidden": "no permission to read it",
    "not_a_file": "a folder, pipe or device",
    "unfetchable": "reading failed: disk, network or server",
}

PICTURE = pa.struct(
    [
        *plan.SCHEMA,
        pa.field("data", pa.large_binary()),
        pa.field("error", pa.string()),
    ]
)
#: One row per unit: its pictures stay together whatever Ray does with blocks.
UNIT_SCHEMA = pa.schema([pa.field("range", pa.int32(), False), pa.field("pictures", pa.large_list(PICTURE), False)])


def fetch(unit: pa.Table, *, plan_folder: Path) -> pa.Table:
    """One row (range, its file, position in it) -> one row of UNIT_SCHEMA; `error` says why `data` is null."""
    (row,) = unit.to_pylist()
    pictures = plan.read_unit(plan_folder, row["file"], row["position"])
    with ThreadPoolExecutor(THREADS) as threads:
        answers = list(threads.map(_fetch_one, pictures["uri"].to_pylist()))
    pictures = pictures.append_column("data", pa.array([data for data, _ in answers], pa.large_binary()))
    pictures = pictures.append_column("error", pa.array([error for _, error in answers], pa.string()))
    nested = nest(pictures.cast(pa.schema(list(PICTURE))), UNIT_SCHEMA.field("pictures"))
    return pa.table([pa.array([row["range"]], pa.int32()), nested], schema=UNIT_SCHEMA)


def nest(table: pa.Table, field: pa.Field) -> pa.Array:
    """All rows of a table as one value of a list column; `unnest` is the way back."""
    structs = table.to_struct_array().combine_chunks()
    return pa.LargeListArray.from_arrays(pa.array([0, len(structs)], pa.int64()), structs.cast(field.type.value_type))


def unnest(column: pa.ChunkedArray) -> pa.Table:
    """The rows inside a list column of one value."""
    return pa.Table.from_struct_array(column.combine_chunks().flatten())


def _fetch_one(uri: str) -> tuple[bytes | None, str | None]:
    try:
        return storage.read(uri, MAX_BYTES), None
    except OSError as error:
        return None, _reason(error)


def _reason(error: OSError) -> str:
    """The stable word for why a picture could not be read."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "missing"
    if isinstance(error, PermissionError):
        return "forbidden"
    if isinstance(error, IsADirectoryError) or error.errno == errno.ENODEV:
        return "not_a_file"
    return "too_large" if error.errno == errno.EFBIG else "unfetchable"
