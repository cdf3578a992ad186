"""The work of a run, written down once before it starts, so that every rerun does the same images in the same units.

A *unit* is the images that one worker handles at a time and whose rows are one staged object.  A *part* is consecutive
units that become one Parquet file of `stats` and one of `masks`.  The file `part-00000-HASH.parquet` lists the images
of a part and `plan-HASH.json` all parts.  HASH is of the content, so that a second driver, or one killed while
planning, does no harm: run.json says which plans count.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from segface_batch import storage
from segface_batch.inputs.image import Cell, SourceImage

#: Small enough that progress shows and a killed run repeats little on a CPU (a second per image), large enough that
#: what Ray does for a unit, some 0.2 s of CPU time, vanishes beside the network.
MAX_UNIT = 64
#: A unit of a Parquet file reads its row group from the start, so these units are larger.
MAX_CELLS = 256
#: The encoded images of a unit are in memory together.
MAX_UNIT_BYTES = 64 * 2**20
#: Beyond this many images units grow in proportion to the images before them, up to LARGEST_UNIT, because the driver
#: spends its time per unit.  Only units of images of known size grow: MAX_UNIT_BYTES bounds their sum.
SMALL_PLAN = 2**20
LARGEST_UNIT = 1024
#: Few images become small units, so that all workers have work until the end.
MIN_UNIT = 8
UNITS_OF_A_PART = 64

_NOTHING = pa.schema([])

#: What an image is called and its landmarks; the carried columns follow.
NAMES = pa.schema(
    [
        pa.field("unit", pa.int32(), False),
        pa.field("seq", pa.int32(), False),
        pa.field("image_id", pa.string(), False),
        pa.field("uri", pa.string(), False),
        pa.field("landmarks", pa.list_(pa.float32())),
    ]
)

#: Where its bytes are (inputs.image); no carried column begins with an underscore.
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
    """The columns of a part's file."""
    return pa.schema([*NAMES, *carried, *PLACES])


@dataclass(frozen=True)
class PlannedPart:
    """The part number `index`: units from number `first_unit` on, of `sizes` images each, listed in `file`."""

    index: int
    first_unit: int
    sizes: tuple[int, ...]
    file: str

    @property
    def name(self) -> str:
        return f"part-{self.index:05d}"

    @property
    def images(self) -> int:
        return sum(self.sizes)

    @property
    def units(self) -> range:
        return range(self.first_unit, self.first_unit + len(self.sizes))


@dataclass(frozen=True)
class Plan:
    """All parts; `skipped` counts by kind what the inputs hold besides images, `carried` are the inputs' columns that
    the output repeats."""

    parts: tuple[PlannedPart, ...]
    skipped: dict[str, int]
    carried: pa.Schema = _NOTHING

    @property
    def images(self) -> int:
        return sum(planned.images for planned in self.parts)


def write(
    folder: str,
    images: Iterable[SourceImage],
    skipped: Counter[str],
    part_rows: int,
    *,
    carried: pa.Schema = _NOTHING,
    first_unit: int = 0,
    first_part: int = 0,
) -> str:
    """Plan the images in their order, `part_rows` to a part, and return the name of the plan's file.

    `skipped` is complete, and read, when all images are listed.  Memory is that of one part's images.
    """
    parts: list[dict[str, Any]] = []
    for members, sizes in in_units(images, part_rows):
        index = first_part + len(parts)
        file = _put(folder, f"part-{index:05d}", ".parquet", to_parquet(table(members, first_unit, sizes, carried)))
        parts.append({"index": index, "first_unit": first_unit, "sizes": sizes, "file": file})
        first_unit += len(sizes)
    content = {
        "parts": parts,
        "skipped": dict(sorted(skipped.items())),
        "carried": base64.b64encode(carried.serialize()).decode(),  # any type that Arrow has
    }
    return _put(folder, "plan", ".json", json.dumps(content).encode())


def in_units(
    images: Iterable[SourceImage], part_rows: int, before: int = 0
) -> Iterator[tuple[list[SourceImage], list[int]]]:
    """The images of each part in turn, and the sizes of its units; `before` images come earlier in the plan."""
    images = iter(images)
    while members := list(itertools.islice(images, part_rows)):
        yield members, list(_sizes(members, before))
        before += len(members)


def read(folder: str, names: Sequence[str]) -> Plan:
    """The plans of those names as one: all their parts, and what the last one skipped."""
    parts: list[PlannedPart] = []
    skipped, schemas = {}, []
    for name in names:
        content = json.loads(storage.read(storage.join(folder, name)))
        parts += [PlannedPart(**{**entry, "sizes": tuple(entry["sizes"])}) for entry in content["parts"]]
        skipped = content["skipped"]
        schemas.append(pa.ipc.read_schema(pa.py_buffer(base64.b64decode(content["carried"]))))
    for carried in schemas[1:]:
        if carried != schemas[0]:
            raise ValueError(
                f"the inputs' columns were {_shown(schemas[0])} and are {_shown(carried)} now; make them as they were"
            )
    return Plan(tuple(parts), skipped, schemas[0] if schemas else _NOTHING)


@lru_cache(maxsize=2)
def read_part(folder: str, file: str) -> pa.Table:
    """All rows of a part's file; a process that gets several units of it reads it once."""
    return pq.read_table(pa.BufferReader(storage.read(storage.join(folder, file))), use_threads=False)


@dataclass(frozen=True)
class Unit:
    """The images of a unit, or some of them, as they were planned, with the `seq` of each."""

    number: int
    seqs: tuple[int, ...]
    images: tuple[SourceImage, ...]
    carried: pa.Schema


def read_unit(folder: str, file: str, position: int, seqs: Collection[int] | None = None) -> Unit:
    """The unit at that position in a part's file, or only those `seqs` of it."""
    rows = read_part(folder, file)
    units = rows["unit"].to_numpy()
    number = int(units[0]) + position
    start, end = np.searchsorted(units, [number, number + 1])
    rows = rows.slice(start, end - start)
    if seqs is not None:
        rows = rows.filter(pa.array([seq in seqs for seq in rows["seq"].to_pylist()], pa.bool_()))
    own = {*NAMES.names, *PLACES.names}
    carried = pa.schema([field for field in rows.schema if field.name not in own])
    return Unit(number, tuple(rows["seq"].to_pylist()), tuple(_source_images(rows, carried.names)), carried)


def _put(folder: str, stem: str, suffix: str, content: bytes) -> str:
    name = f"{stem}-{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
    storage.put(storage.join(folder, name), content)
    return name


def _sizes(members: Sequence[SourceImage], before: int) -> Iterator[int]:
    """The sizes of a part's units: a function of the images and of their place in the plan alone.

    A unit has loose images, or members of one tar file within MAX_UNIT_BYTES of it, or rows of one row group.
    """
    usual = min(MAX_UNIT, max(MIN_UNIT, -(-len(members) // UNITS_OF_A_PART)))
    if before >= SMALL_PLAN and all(image.n_bytes for image in members):
        usual = min(LARGEST_UNIT, MAX_UNIT * before // SMALL_PLAN)
    container: Any = None
    size = most = n_bytes = start = 0
    for image in members:
        own, at = None, 0
        if image.offset is not None:
            own, at = image.place, image.offset
        elif image.cell is not None:
            own = (image.place, image.cell.group)
        # What a tar file has between two members is read with them.
        n_bytes = max(n_bytes, at - start) + image.n_bytes
        if size and (size == most or own != container or at < start or n_bytes > MAX_UNIT_BYTES):
            yield size
            size = 0
        if size == 0:
            container, start, n_bytes = own, at, image.n_bytes
            most = usual if image.cell is None else max(usual, MAX_CELLS)
        size += 1
    yield size


def table(members: Sequence[SourceImage], first_unit: int, sizes: Sequence[int], carried: pa.Schema) -> pa.Table:
    """The rows of a part's file."""
    cells = [image.cell or (None, None, None, None) for image in members]
    columns = [
        [first_unit + number for number, size in enumerate(sizes) for _ in range(size)],
        [seq for size in sizes for seq in range(size)],
        [image.image_id for image in members],
        [image.uri for image in members],
        [image.landmarks for image in members],
        *([image.carried[number] for image in members] for number in range(len(carried))),
        [None if image.place == image.uri else image.place for image in members],
        [image.n_bytes for image in members],
        [image.offset for image in members],
        *([cell[number] for cell in cells] for number in range(4)),
        [image.error for image in members],
    ]
    whole = schema(carried)
    return pa.table([pa.array(values, field.type) for values, field in zip(columns, whole, strict=True)], schema=whole)


def _source_images(rows: pa.Table, carried: Sequence[str]) -> Iterator[SourceImage]:
    """The inverse of `table`."""
    for row in rows.to_pylist():
        cell = None if row["_column"] is None else (row["_column"], row["_group"], row["_row"], row["_file_bytes"])
        yield SourceImage(
            row["image_id"],
            row["uri"],
            row["landmarks"],
            row["_n_bytes"],
            row["_place"],
            row["_offset"],
            cell and Cell(*cell),
            row["_error"],
            tuple(row[name] for name in carried),
        )


def to_parquet(rows: pa.Table) -> bytes:
    """The content of a part's file."""
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="zstd", row_group_size=rows.num_rows)
    return sink.getvalue().to_pybytes()


def _shown(carried: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in carried) or "none"
