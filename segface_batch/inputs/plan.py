"""The work of a run, written down once before it starts, so that every rerun does the same pictures in the same units.

A *unit* is what one task handles and one staged object holds; a *range* is a run of units that becomes one part of
the output.  A file `range-00000-HASH.parquet` lists the pictures of a range, a row group for each of its units, and
`plan-HASH.json` all ranges.  HASH is of the content: whoever else plans, or was killed while planning, disturbs nobody,
and run.json says which plan counts.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from segface_batch import storage
from segface_batch.inputs.sources import Picture

#: Small enough that progress shows and a killed run repeats little on a CPU (a second per picture), large enough that
#: Ray's 10-15 ms per task vanish beside the network.
MAX_UNIT = 64
#: A unit's encoded pictures travel through Ray's object store together.
MAX_UNIT_BYTES = 64 * 2**20
#: Few pictures become small units, so that all actors have work until the end.
MIN_UNIT = 8
UNITS_OF_A_RANGE = 256

SCHEMA = pa.schema(
    [
        pa.field("unit", pa.int32(), False),
        pa.field("seq", pa.int32(), False),
        pa.field("image_id", pa.string(), False),
        pa.field("uri", pa.string(), False),
        pa.field("landmarks", pa.list_(pa.float32())),
    ]
)


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
    """All ranges, and what the source held besides pictures, by kind."""

    ranges: tuple[Range, ...]
    skipped: dict[str, int]

    @property
    def pictures(self) -> int:
        return sum(planned.pictures for planned in self.ranges)


def write(folder: Path, pictures: Iterable[Picture], skipped: Counter[str], part_rows: int) -> str:
    """Plan the pictures in their order, `part_rows` of them to a range; the name of the plan's file.

    `skipped` is read when all pictures are listed.
    """
    ranges: list[Range] = []
    first_unit = 0
    for members in _chunks(pictures, part_rows):
        units = list(_units(members))
        file = _put(folder, f"range-{len(ranges):05d}", ".parquet", _range_table(first_unit, units))
        ranges.append(Range(len(ranges), first_unit, tuple(len(unit) for unit in units), file))
        first_unit += len(units)
    plan = Plan(tuple(ranges), dict(sorted(skipped.items())))
    return _put(folder, "plan", ".json", json.dumps(asdict(plan)).encode())


def read(folder: Path, name: str) -> Plan:
    """The plan of that name."""
    content = json.loads(storage.read(str(folder / name)))
    return Plan(
        tuple(Range(**{**entry, "sizes": tuple(entry["sizes"])}) for entry in content["ranges"]), content["skipped"]
    )


def read_unit(folder: Path, file: str, position: int) -> pa.Table:
    """The pictures (SCHEMA) of the unit at that position in a range's file."""
    with pq.ParquetFile(folder / file) as ranged:
        return ranged.read_row_group(position).cast(SCHEMA)


def _put(folder: Path, stem: str, suffix: str, content: bytes) -> str:
    name = f"{stem}-{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
    storage.put(folder / name, content)
    return name


def _chunks(pictures: Iterable[Picture], size: int) -> Iterator[list[Picture]]:
    pictures = iter(pictures)
    while members := list(itertools.islice(pictures, size)):
        yield members


def _units(members: list[Picture]) -> Iterator[list[Picture]]:
    """Cut a range's pictures into units, by number and by bytes; a function of the pictures alone."""
    size = min(MAX_UNIT, max(MIN_UNIT, -(-len(members) // UNITS_OF_A_RANGE)))
    unit: list[Picture] = []
    n_bytes = 0
    for picture in members:
        if unit and (len(unit) == size or n_bytes + picture.n_bytes > MAX_UNIT_BYTES):
            yield unit
            unit, n_bytes = [], 0
        unit.append(picture)
        n_bytes += picture.n_bytes
    yield unit


def _range_table(first_unit: int, units: list[list[Picture]]) -> bytes:
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, SCHEMA, compression="zstd") as writer:
        for number, members in enumerate(units, start=first_unit):
            rows = [
                {"unit": number, "seq": seq, "image_id": p.image_id, "uri": p.uri, "landmarks": p.landmarks}
                for seq, p in enumerate(members)
            ]
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA), row_group_size=len(rows))
    return sink.getvalue().to_pybytes()
