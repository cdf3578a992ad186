"""The work of a run, written down once before it starts, so that every rerun does the same pictures in the same units.

A *unit* is what one task handles and one staged object holds; a *range* is a run of units that becomes one part of
the output.  `plan/range-00000.parquet` lists the pictures of a range, a row group for each of its units;
`plan/plan.json`, written last and create-only, makes the plan valid.
"""

from __future__ import annotations

import itertools
import json
import shutil
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
    """The content of part number `index`: units `first_unit`, ... of so many pictures each."""

    index: int
    first_unit: int
    sizes: tuple[int, ...]

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
        return sum(part.pictures for part in self.ranges)


def write(folder: Path, pictures: Iterable[Picture], skipped: Counter[str], part_rows: int) -> Plan:
    """Plan the pictures in their order, `part_rows` of them to a range; `skipped` is read when all are listed."""
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed while it planned
    ranges: list[Range] = []
    first_unit = 0
    for members in _chunks(pictures, part_rows):
        units = list(_units(members))
        planned = Range(len(ranges), first_unit, tuple(len(unit) for unit in units))
        storage.put(_range_file(folder, planned.index), _range_table(first_unit, units))
        ranges.append(planned)
        first_unit += len(units)
    plan = Plan(tuple(ranges), dict(sorted(skipped.items())))
    storage.put(folder / "plan.json", json.dumps(asdict(plan)).encode())
    return plan


def read(folder: Path) -> Plan | None:
    """The plan that a run has written, None where none is complete."""
    try:
        content = json.loads(storage.read(str(folder / "plan.json")))
    except FileNotFoundError:
        return None
    ranges = (Range(entry["index"], entry["first_unit"], tuple(entry["sizes"])) for entry in content["ranges"])
    return Plan(tuple(ranges), content["skipped"])


def read_unit(folder: Path, range_index: int, position: int) -> pa.Table:
    """The pictures (SCHEMA) of the unit at that position in its range."""
    with pq.ParquetFile(_range_file(folder, range_index)) as file:
        return file.read_row_group(position).cast(SCHEMA)


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


def _range_file(folder: Path, index: int) -> Path:
    return folder / f"range-{index:05d}.parquet"


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
