"""The work of a run, written down once before it starts, so that every rerun does the same pictures in the same units.

A *unit* is what one task handles and one staged object holds; a *range* is a run of units that becomes one part of
the output.  A file `range-00000-HASH.parquet` lists the pictures of a range and `plan-HASH.json` all ranges.  HASH is
of the content: whoever else plans, or was killed while planning, disturbs nobody, and run.json says which plans count.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from segface_batch import storage
from segface_batch.inputs.picture import Picture

#: Small enough that progress shows and a killed run repeats little on a CPU (a second per picture), large enough that
#: what Ray does for a unit, some 0.2 s of CPU time, vanishes beside the network.
MAX_UNIT = 64
#: Each unit of a row group reads the group from its start, so there are fewer of them.
MAX_CELLS = 256
#: A unit's encoded pictures travel through Ray's object store together.
MAX_UNIT_BYTES = 64 * 2**20
#: Where a plan has more pictures than this before a unit, units grow, in proportion to what is before them, up to
#: LARGEST_UNIT: the driver's time goes by units.  Only pictures of known size, of which MAX_UNIT_BYTES bounds the sum.
SMALL_PLAN = 2**20
LARGEST_UNIT = 1024
#: Few pictures become small units, so that all actors have work until the end.
MIN_UNIT = 8
UNITS_OF_A_RANGE = 64

_NOTHING = pa.schema([])

#: What a picture is called, and what is known of it; the carried columns follow.
NAMES = pa.schema(
    [
        pa.field("unit", pa.int32(), False),
        pa.field("seq", pa.int32(), False),
        pa.field("image_id", pa.string(), False),
        pa.field("uri", pa.string(), False),
        pa.field("landmarks", pa.list_(pa.float32())),
    ]
)

#: Where its bytes are (inputs.picture); begins with a word that no carried column begins with.
PLACES = pa.schema(
    [
        pa.field("_place", pa.string()),
        pa.field("_n_bytes", pa.int64(), False),
        pa.field("_offset", pa.int64()),
        pa.field("_column", pa.string()),
        pa.field("_group", pa.int32()),
        pa.field("_row", pa.int32()),
        pa.field("_file_bytes", pa.int64()),
        pa.field("_error", pa.string()),
    ]
)


def schema(carried: pa.Schema = _NOTHING) -> pa.Schema:
    """The columns of a range's file."""
    return pa.schema([*NAMES, *carried, *PLACES])


@dataclass(frozen=True)
class Range:
    """The content of part number `index`: units `first_unit`, ... of so many pictures each, listed in `file`."""

    index: int
    first_unit: int
    sizes: tuple[int, ...]
    file: str

    @property
    def part(self) -> str:
        return f"part-{self.index:05d}"

    @property
    def pictures(self) -> int:
        return sum(self.sizes)

    @property
    def units(self) -> range:
        return range(self.first_unit, self.first_unit + len(self.sizes))


@dataclass(frozen=True)
class Plan:
    """All ranges, what the inputs held besides pictures, by kind, and the inputs' columns that the output repeats."""

    ranges: tuple[Range, ...]
    skipped: dict[str, int]
    carried: pa.Schema = _NOTHING

    @property
    def pictures(self) -> int:
        return sum(planned.pictures for planned in self.ranges)


def write(
    folder: str,
    pictures: Iterable[Picture],
    skipped: Counter[str],
    part_rows: int,
    *,
    carried: pa.Schema = _NOTHING,
    first_unit: int = 0,
    first_range: int = 0,
) -> str:
    """Plan the pictures in their order, `part_rows` of them to a range; the name of the plan's file.

    `skipped` is read when all pictures are listed.  Holds the pictures of one range.
    """
    ranges: list[dict[str, Any]] = []
    for members, sizes in in_units(pictures, part_rows):
        index = first_range + len(ranges)
        file = _put(folder, f"range-{index:05d}", ".parquet", to_parquet(table(members, first_unit, sizes, carried)))
        ranges.append({"index": index, "first_unit": first_unit, "sizes": sizes, "file": file})
        first_unit += len(sizes)
    content = {
        "ranges": ranges,
        "skipped": dict(sorted(skipped.items())),
        "carried": base64.b64encode(carried.serialize()).decode(),  # any type that Arrow has
    }
    return _put(folder, "plan", ".json", json.dumps(content).encode())


def in_units(pictures: Iterable[Picture], part_rows: int, before: int = 0) -> Iterator[tuple[list[Picture], list[int]]]:
    """The pictures of each range in turn, and how many of them each of its units has; `before` come earlier in the
    plan."""
    pictures = iter(pictures)
    while members := list(itertools.islice(pictures, part_rows)):
        yield members, list(_sizes(members, before))
        before += len(members)


def read(folder: str, names: Sequence[str]) -> Plan:
    """The plans of those names as one: their ranges one after another, what the last one passed over."""
    ranges: list[Range] = []
    skipped, schemas = {}, []
    for name in names:
        content = json.loads(storage.read(storage.join(folder, name)))
        ranges += [Range(**{**entry, "sizes": tuple(entry["sizes"])}) for entry in content["ranges"]]
        skipped = content["skipped"]
        schemas.append(pa.ipc.read_schema(pa.py_buffer(base64.b64decode(content["carried"]))))
    for carried in schemas[1:]:
        if carried != schemas[0]:
            raise ValueError(
                f"the inputs' columns were {_shown(schemas[0])} and are {_shown(carried)} now; make them as they were"
            )
    return Plan(tuple(ranges), skipped, schemas[0] if schemas else _NOTHING)


@lru_cache(maxsize=2)
def read_range(folder: str, file: str) -> pa.Table:
    """All rows of a range's file, which a process reads once for the units that it gets of it."""
    return pq.read_table(pa.BufferReader(storage.read(storage.join(folder, file))), use_threads=False)


def read_unit(folder: str, file: str, position: int) -> pa.Table:
    """The rows of the unit at that position in a range's file."""
    rows = read_range(folder, file)
    units = rows["unit"].to_numpy()
    start, end = np.searchsorted(units, [units[0] + position, units[0] + position + 1])
    return rows.slice(start, end - start)


def _put(folder: str, stem: str, suffix: str, content: bytes) -> str:
    name = f"{stem}-{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
    storage.put(storage.join(folder, name), content)
    return name


def _sizes(members: Sequence[Picture], before: int) -> Iterator[int]:
    """How many pictures each unit of a range has: a function of the pictures and of their place in the plan alone.

    A unit is of loose pictures, of members of one tar file that lie together within MAX_UNIT_BYTES, or of rows of one
    row group.
    """
    usual = min(MAX_UNIT, max(MIN_UNIT, -(-len(members) // UNITS_OF_A_RANGE)))
    if before >= SMALL_PLAN and all(picture.n_bytes for picture in members):
        usual = min(LARGEST_UNIT, MAX_UNIT * before // SMALL_PLAN)
    container: Any = None
    size = most = n_bytes = start = 0
    for picture in members:
        own, at = None, 0
        if picture.offset is not None:
            own, at = picture.place, picture.offset
        elif picture.cell is not None:
            own = (picture.place, picture.cell.group)
        # What a tar file has between two members is read with them.
        n_bytes = max(n_bytes, at - start) + picture.n_bytes
        if size and (size == most or own != container or at < start or n_bytes > MAX_UNIT_BYTES):
            yield size
            size = 0
        if size == 0:
            container, start, n_bytes = own, at, picture.n_bytes
            most = usual if picture.cell is None else max(usual, MAX_CELLS)
        size += 1
    yield size


def table(members: Sequence[Picture], first_unit: int, sizes: Sequence[int], carried: pa.Schema) -> pa.Table:
    """The rows of a range's file."""
    cells = [picture.cell or (None, None, None, None) for picture in members]
    columns = [
        [first_unit + number for number, size in enumerate(sizes) for _ in range(size)],
        [seq for size in sizes for seq in range(size)],
        [picture.image_id for picture in members],
        [picture.uri for picture in members],
        [picture.landmarks for picture in members],
        *([picture.carried[number] for picture in members] for number in range(len(carried))),
        [None if picture.place == picture.uri else picture.place for picture in members],
        [picture.n_bytes for picture in members],
        [picture.offset for picture in members],
        *([cell[number] for cell in cells] for number in range(4)),
        [picture.error for picture in members],
    ]
    whole = schema(carried)
    return pa.table([pa.array(values, field.type) for values, field in zip(columns, whole, strict=True)], schema=whole)


def to_parquet(rows: pa.Table) -> bytes:
    """The content of a range's file."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd", row_group_size=rows.num_rows)
    return sink.getvalue().to_pybytes()


def _shown(carried: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in carried) or "none"
