"""A planned unit becomes one row that holds its encoded pictures, or why a picture could not be had.

A unit's loose pictures are read side by side; its members of a tar file by one request, from the first header to the
last byte; its rows of a Parquet file by reading their row group up to them.  What every picture of a unit suffers from
is no fault of a picture: it is told in `fatal`, and ends the run.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa

from segface_batch import storage
from segface_batch.inputs import parquet, plan, tar
from segface_batch.inputs.picture import Cell
from segface_batch.inputs.redact import redacted_text

#: Waiting for a disk or a network costs no CPU.
THREADS = 16

#: A picture within `max_pixels` is smaller in every format that is read.
MAX_BYTES = 512 * 2**20

#: So many pictures that cannot be had, and none that can, are a matter of rights or of the network.
FATAL_PICTURES = 8

#: Why a picture could not be had, besides decode's `too_large`, `truncated` (a tar file that ends within the picture)
#: and `unreadable` (a damaged tar or Parquet file).
REASONS = {
    "missing": "no file or object of that name, or null in a Parquet file",
    "forbidden": "no permission to read it",
    "not_a_file": "a folder, pipe or device",
    "changed": "another length than when it was planned, or changed while it was read",
    "unfetchable": "reading failed: disk, network or server",
}

#: Reasons that all pictures of a unit share only if the fault is elsewhere, and what to do about it.
_CURES = {"forbidden": "mend the rights", "unfetchable": "see to the disk, network or server"}


def unit_schema(carried: pa.Schema) -> pa.Schema:
    """One row per unit: its pictures stay together whatever Ray does with blocks.  `unit` is null, and `pictures` are
    without carried columns, where not even the plan could be read."""
    own = [pa.field("data", pa.large_binary()), pa.field("error", pa.string())]
    pictures = pa.struct([*plan.NAMES, *carried, *own])
    return pa.schema(
        [
            pa.field("range", pa.int32(), False),
            pa.field("unit", pa.int32()),
            pa.field("pictures", pa.large_list(pictures), False),
            pa.field("fatal", pa.string()),
        ]
    )


class Answer(NamedTuple):
    """A picture's bytes, or in one word why there are none, and the words of whoever refused them."""

    data: bytes | None
    error: str | None = None
    words: str = ""


def fetch(
    unit: pa.Table,
    *,
    plan_folder: str,
    storage_options: str | None = None,
    s3_client: str = "s3fs",
    allow_unreadable: bool = False,
    any_length: bool = False,
) -> pa.Table:
    """One row (range, its file, position in it, seqs: null for all) -> one row of unit_schema.

    A picture's `error` says why `data` is null.  `fatal`, with no pictures, says in one line what must end the run:
    storage of which nothing can be had, anything unforeseen, and, but for `allow_unreadable`, a unit of FATAL_PICTURES
    or more of which every picture is forbidden or unfetchable.  With `any_length` a file may have become another one
    since it was planned.  Never raises.
    """
    (row,) = unit.to_pylist()
    number, carried = None, pa.schema([])
    try:
        storage.configure(storage_options, s3_client)
        planned = plan.read_unit(plan_folder, row["file"], row["position"])
        number = planned["unit"][0].as_py()
        own = [name for name in planned.column_names if name not in plan.PLACES.names]
        carried = planned.select(own[len(plan.NAMES) :]).schema.remove_metadata()
        if row["seqs"] is not None:
            wanted = set(row["seqs"])
            planned = planned.filter(pa.array([seq in wanted for seq in planned["seq"].to_pylist()], pa.bool_()))
        answers = _answers(planned, any_length)
        fatal = None if allow_unreadable else _shared_fault(answers, planned)
        if fatal is None:
            return _unit(row["range"], number, planned.select(own), answers, unit_schema(carried))
    except storage.Unusable as error:
        fatal = _one_line(error)
    except Exception as error:  # Ray would drop a unit that raises
        fatal = f"fetching failed: {type(error).__name__}: {_one_line(error)}"
    nothing = {"range": row["range"], "unit": number, "pictures": [], "fatal": fatal}
    return pa.Table.from_pylist([nothing], unit_schema(carried))


def nest(table: pa.Table, field: pa.Field) -> pa.Array:
    """All rows of a table as one value of a list column; `unnest` is the way back."""
    wanted = pa.schema(list(field.type.value_type))
    structs = table.cast(wanted).to_struct_array().combine_chunks()
    return pa.LargeListArray.from_arrays(pa.array([0, len(structs)], pa.int64()), structs.cast(field.type.value_type))


def unnest(column: pa.ChunkedArray) -> pa.Table:
    """The rows inside a list column of one value."""
    return pa.Table.from_struct_array(column.combine_chunks().flatten())


def _unit(range_index: int, number: int, names: pa.Table, answers: Sequence[Answer], schema: pa.Schema) -> pa.Table:
    pictures = names.append_column("data", pa.array([answer.data for answer in answers], pa.large_binary()))
    pictures = pictures.append_column("error", pa.array([answer.error for answer in answers], pa.string()))
    nested = nest(pictures, schema.field("pictures"))
    first = [pa.array([range_index], pa.int32()), pa.array([number], pa.int32())]
    return pa.table([*first, nested, pa.nulls(1, pa.string())], schema=schema)


def _answers(planned: pa.Table, any_length: bool) -> list[Answer]:
    """An answer for every planned picture, in order."""
    rows = planned.select(["uri", *plan.PLACES.names]).to_pylist()
    deadline = storage.Deadline()
    readable = [row for row in rows if row["_error"] is None]
    if not readable:
        found = []
    elif readable[0]["_column"] is not None:
        found = _from_parquet(readable)
    elif readable[0]["_offset"] is not None:
        found = _from_tar(readable, deadline)
    else:
        with ThreadPoolExecutor(THREADS) as threads:
            found = list(threads.map(lambda row: _of_file(row, deadline, any_length), readable))
    left = iter(found)
    return [next(left) if row["_error"] is None else Answer(None, row["_error"]) for row in rows]


def _of_file(row: dict[str, Any], deadline: storage.Deadline, any_length: bool) -> Answer:
    try:
        data = storage.read(_place(row), MAX_BYTES, deadline=deadline)
    except OSError as error:
        return _refused(error)
    is_other = not any_length and row["_n_bytes"] not in (0, len(data))
    return Answer(None, "changed") if is_other else Answer(data)


def _from_tar(rows: Sequence[dict[str, Any]], deadline: storage.Deadline) -> list[Answer]:
    small = [row for row in rows if row["_n_bytes"] <= MAX_BYTES]
    if not small:
        return [Answer(None, "too_large") for _ in rows]
    start, end = small[0]["_offset"] - tar.BLOCK, small[-1]["_offset"] + small[-1]["_n_bytes"]
    try:
        data = storage.read(_place(small[0]), span=(start, end), deadline=deadline)
    except OSError as error:
        refused = _refused(error)
        return [refused for _ in rows]
    return [_of_member(row, memoryview(data), start) for row in rows]


def _of_member(row: dict[str, Any], data: memoryview, start: int) -> Answer:
    """The picture, if its header still stands before it."""
    at, n_bytes = row["_offset"] - start, row["_n_bytes"]
    if n_bytes > MAX_BYTES:
        return Answer(None, "too_large")
    if not tar.is_header(bytes(data[at - tar.BLOCK : at]), n_bytes):
        return Answer(None, "changed")
    return Answer(bytes(data[at : at + n_bytes]))


def _from_parquet(rows: Sequence[dict[str, Any]]) -> list[Answer]:
    cells = [Cell(row["_column"], row["_group"], row["_row"], row["_file_bytes"]) for row in rows]
    try:
        found = parquet.read(_place(rows[0]), cells)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        return [Answer(None, "unreadable", _one_line(error)) for _ in rows]
    except OSError as error:
        # Arrow's own errors, which it has for damaged pages, are OSErrors without a number.
        refused = _refused(error) if error.errno else Answer(None, "unreadable", _one_line(error))
        return [refused for _ in rows]
    return [_of_cell(data) for data in found]


def _of_cell(data: bytes | None) -> Answer:
    if data is None:
        return Answer(None, "missing")
    return Answer(data) if len(data) <= MAX_BYTES else Answer(None, "too_large")


def _place(row: dict[str, Any]) -> str:
    return row["_place"] or row["uri"]


def _refused(error: OSError) -> Answer:
    if isinstance(error, storage.Unusable):
        raise error
    return Answer(None, _reason(error), _one_line(error))


def _reason(error: OSError) -> str:
    """The stable word for why a picture could not be read."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "missing"
    if isinstance(error, PermissionError):
        return "forbidden"
    if isinstance(error, IsADirectoryError) or error.errno == errno.ENODEV:
        return "not_a_file"
    return {errno.EFBIG: "too_large", errno.ESTALE: "changed"}.get(error.errno or 0, "unfetchable")


def _shared_fault(answers: Sequence[Answer], planned: pa.Table) -> str | None:
    """What ails the unit, if no picture of it could be had for reasons that are not the pictures' own."""
    known = planned["_error"].to_pylist()
    tried = [answer for answer, error in zip(answers, known, strict=True) if error is None]
    errors = sorted({str(answer.error) for answer in tried})
    if len(tried) < FATAL_PICTURES or not set(errors) <= set(_CURES):
        return None
    unit, cures = planned["unit"][0].as_py(), " and ".join(_CURES[error] for error in errors)
    return (
        f"all {len(tried)} pictures of unit {unit} are {' or '.join(errors)} (first: {tried[0].words}); {cures} and "
        "run again, or add --allow-unreadable to record them as errors"
    )


def _one_line(error: BaseException) -> str:
    """What happened, without secrets; the system's errors as PLACE: WORDS."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return redacted_text((text.splitlines() or [""])[0])
