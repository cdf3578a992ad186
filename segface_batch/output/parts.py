"""Stage and publish: how rows reach the output exactly once, however often work is repeated.

    OUT/_segface/staging/part-00000/unit-00000000.arrow   the rows of one unit, all tables side by side
    OUT/masks/part-00000.parquet                           then, from all staged units of the part, its masks,
    OUT/shapes/part-00000.parquet                          their shapes,
    OUT/_segface/parts/part-00000.json                     its record (counts and fingerprints),
    OUT/stats/part-00000.parquet                           and its statistics: once they exist, the part is published

Every name follows from the plan, and every object is created whole and never overwritten: a repeated task, a second
driver or a late one finds its work done.  What is staged of a part is removed once the part is published.  A unit that
was split into images has its rows in unit-00000000/seq-00000.arrow until they are joined.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from segface_batch import storage
from segface_batch.output import schema
from segface_batch.output.plan import Plan, PlannedPart
from segface_batch.storage.redact import one_line, redacted

log = logging.getLogger(__name__)

#: Readers fetch whole row groups; a thousand masks of 6 kB are 6 MB, statistics fit into one group.
MASK_ROW_GROUP = 1024

#: Waiting for storage costs no CPU.
THREADS = 16


class Staging:
    """The places where rows wait to be published: of a run, or of one retry of images with errors."""

    def __init__(self, out: str, retry: str = "") -> None:
        self.place = storage.join(out, "_segface", "staging", *([retry] if retry else []))

    def part(self, planned: PlannedPart) -> str:
        return storage.join(self.place, f"part-{planned.index:05d}")

    def unit(self, planned: PlannedPart, unit: int) -> str:
        return storage.join(self.part(planned), f"unit-{unit:08d}.arrow")

    def image(self, planned: PlannedPart, unit: int, seq: int) -> str:
        return storage.join(self.part(planned), f"unit-{unit:08d}", f"seq-{seq:05d}.arrow")

    def names(self) -> set[str]:
        """The places of all that is staged."""
        return {storage.join(self.place, name) for name in storage.list_names(self.place, ".arrow")}

    def sweep(self) -> None:
        """Remove all that is staged."""
        with _tidying(self.place):
            storage.remove(self.names() if storage.is_url(self.place) else [self.place])

    def clear(self, planned: PlannedPart, units: Iterable[int]) -> None:
        """Remove what is staged of a part."""
        with _tidying(self.part(planned)):
            if storage.is_url(self.place):
                storage.remove(self.unit(planned, unit) for unit in units)
            else:
                storage.remove([self.part(planned)])


@contextmanager
def _tidying(place: str) -> Iterator[None]:
    """Say so where what no run needs cannot be removed: the results are there."""
    try:
        yield
    except OSError as error:
        log.warning("%s stays; no run needs it, remove it yourself (%s)", redacted(place), one_line(error))


def stage(place: str, rows: pa.Table) -> None:
    """Put rows (schema.staged_schema) into staging, unless they are there already."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)
    storage.put(place, sink.getvalue().to_pybytes())


def join(place: str, pieces: Sequence[str]) -> None:
    """Join the rows of a unit that was split into images, in the order of the pieces."""
    stage(place, pa.concat_tables(_read_staged(pieces)))
    with _tidying(place.removesuffix(".arrow")):
        storage.remove(pieces)


def list_published(out: str) -> set[str]:
    """The names of the parts that readers can see: part-00000, ..."""
    return {name.removesuffix(".parquet") for name in storage.list_names(storage.join(out, "stats"), ".parquet")}


def find_unfinished(out: str, plan: Plan) -> dict[PlannedPart, list[int]]:
    """For every part that is not published, its units whose rows are not staged; by two listings, opening no object."""
    done, staging = list_published(out), Staging(out)
    todo = [planned for planned in plan.parts if planned.name not in done]
    staged = staging.names() if todo else set()
    return {planned: [unit for unit in planned.units if staging.unit(planned, unit) not in staged] for planned in todo}


def publish(out: str, planned: PlannedPart, run: Mapping[str, Any]) -> None:
    """Publish a part, all of whose units are staged; `run` is run.json's content."""
    staging, name = Staging(out), f"{planned.name}.parquet"
    try:
        rows = pa.concat_tables(_read_staged([staging.unit(planned, unit) for unit in planned.units]))
    except FileNotFoundError:
        if planned.name in list_published(out):
            return  # another driver was faster
        raise
    if (found := len(set(_images(rows)))) != planned.images:
        raise ValueError(f"{planned.name}: {found} images staged, {planned.images} are planned")
    content = files(rows, run)
    for table in (schema.MASKS, schema.SHAPES):
        place = storage.join(out, table, name)
        if not storage.put(place, content[table]):
            content[table] = storage.read(place)  # an earlier publisher's
    storage.put(record_place(out, planned), _json(_record(planned, rows, content)))
    storage.put(storage.join(out, schema.STATS, name), content[schema.STATS])
    staging.clear(planned, planned.units)


def republish(out: str, planned: PlannedPart, run: Mapping[str, Any], retry: str, units: Collection[int]) -> None:
    """Replace the rows of the images that were tried again; repeating it changes nothing."""
    staging, name = Staging(out, retry), f"{planned.name}.parquet"
    again = pa.concat_tables(_read_staged([staging.unit(planned, unit) for unit in sorted(units)]))
    tried = set(_images(again))
    # Each table without the images that were tried: they alone can differ where a process died between two writes.
    others = [
        _without(tried, pq.read_table(pa.BufferReader(storage.read(storage.join(out, table, name)))))
        for table in schema.TABLES
    ]
    rows = pa.concat_tables([schema.joined(others, again.schema), again])
    rows = rows.sort_by([(key, "ascending") for key in schema.KEY])
    content = files(rows, run)
    for table in schema.TABLES:
        storage.replace(storage.join(out, table, name), content[table])
    storage.replace(record_place(out, planned), _json(_record(planned, rows, content)))


def _without(images: Collection[tuple[int, int]], rows: pa.Table) -> pa.Table:
    """The rows of all other images."""
    return rows.filter(pa.array([image not in images for image in _images(rows)], pa.bool_()))


def finish(out: str, plan: Plan) -> dict[str, Any]:
    """Write manifest.json, now that every part is published, and return it: the parts' records and their totals."""
    manifest = summed(plan, read_records(out, plan.parts))
    place, content = storage.join(out, "_segface", "manifest.json"), _json(manifest)
    try:
        is_new = storage.read(place) != content
    except FileNotFoundError:
        is_new = True
    if is_new:
        Staging(out).sweep()
        with _tidying(storage.join(out, "**", ".*.tmp")):
            storage.remove(_list_temporaries(out))
        storage.replace(place, content)
    return manifest


def summed(plan: Plan, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The manifest of a plan's parts."""
    totals: dict[str, Any] = {key: sum(record[key] for record in records) for key in ("rows", "images")}
    totals |= {key: _total(record[key] for record in records) for key in ("images_by_status", "status", "errors")}
    return {**totals, "skipped": plan.skipped, "parts": list(records)}


def read_records(out: str, parts: Sequence[PlannedPart]) -> list[dict[str, Any]]:
    """The record of each part."""
    with ThreadPoolExecutor(THREADS) as threads:
        return [json.loads(text) for text in threads.map(lambda part: storage.read(record_place(out, part)), parts)]


def record_place(out: str, planned: PlannedPart) -> str:
    return storage.join(out, "_segface", "parts", f"{planned.name}.json")


def find_error_images(out: str, parts: Sequence[PlannedPart]) -> dict[int, dict[int, list[int]]]:
    """The seqs of all images that have a row with an error, by index of the part and number of the unit."""
    found: dict[int, dict[int, list[int]]] = {}
    for planned, record in zip(parts, read_records(out, parts), strict=True):
        if record["status"].get(schema.ERROR):
            part = storage.read(storage.join(out, "stats", f"{planned.name}.parquet"))
            rows = pq.read_table(pa.BufferReader(part), columns=["unit", "seq", "status"]).to_pylist()
            units = found[planned.index] = defaultdict(list)
            for row in rows:
                # An image may have several faces that failed.
                if row["status"] == schema.ERROR and row["seq"] not in units[row["unit"]][-1:]:
                    units[row["unit"]].append(row["seq"])
    return found


def counts(rows: pa.Table) -> dict[str, Any]:
    """What a part's record says of its rows: their number, and images, rows and errors by kind.

    An image with a face is ok, whatever its other faces are.
    """
    best: dict[tuple[int, int], str] = {}
    for image, status in zip(_images(rows), rows["status"].to_pylist(), strict=True):
        if best.get(image) != schema.OK:
            best[image] = status
    return {
        "rows": rows.num_rows,
        "images_by_status": dict(sorted(Counter(best.values()).items())),
        "status": dict(sorted(Counter(rows["status"].to_pylist()).items())),
        "errors": dict(sorted(Counter(filter(None, rows["error"].to_pylist())).items())),
    }


def fingerprint(content: bytes) -> dict[str, Any]:
    """Length and sha256 of a file, as the records have them."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _images(rows: pa.Table) -> list[tuple[int, int]]:
    """The image of each row: its unit and seq."""
    return list(zip(rows["unit"].to_pylist(), rows["seq"].to_pylist(), strict=True))


def _read_staged(places: Sequence[str]) -> list[pa.Table]:
    def read(place: str) -> pa.Table:
        with pa.ipc.open_file(pa.BufferReader(storage.read(place))) as reader:
            return reader.read_all()

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(read, places))


def files(rows: pa.Table, run: Mapping[str, Any]) -> dict[str, bytes]:
    """The Parquet files of a part, by table; `run` is run.json's content."""
    rows = rows.combine_chunks()  # the bytes must not depend on the units
    metadata, found = schema.metadata(run), {}
    for name, table in schema.split(rows, [each["name"] for each in run["classes"]]).items():
        also = schema.MASKS_METADATA if name == schema.MASKS else {}
        table = table.replace_schema_metadata(metadata | also)
        found[name] = _parquet(table, MASK_ROW_GROUP if name == schema.MASKS else rows.num_rows)
    return found


def _record(planned: PlannedPart, rows: pa.Table, content: Mapping[str, bytes]) -> dict[str, Any]:
    name = f"{planned.name}.parquet"
    return {
        "part": planned.name,
        "images": planned.images,
        **counts(rows),
        "files": {f"{table}/{name}": fingerprint(file) for table, file in content.items()},
    }


def _parquet(table: pa.Table, row_group_size: int) -> bytes:
    others = [name for name in table.column_names if name not in schema.MASK_COLUMNS]
    # PNG does not shrink further, and a dictionary of masks would be the masks again.
    images = {f"{name}.bytes": "none" for name in table.column_names if name in schema.MASK_COLUMNS}
    options: dict[str, Any] = {"compression": {**dict.fromkeys(others, "zstd"), **images}, "use_dictionary": others}
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, **options) as writer:
        writer.write_table(table, row_group_size=row_group_size)
    return sink.getvalue().to_pybytes()


def _list_temporaries(out: str) -> list[str]:
    """List the files that killed processes did not finish; object stores have none."""
    folders = () if storage.is_url(out) else (*schema.TABLES, "_segface")
    entries = (entry.place for folder in folders for entry in storage.list_objects(storage.join(out, folder)))
    return [place for place in entries if storage.name_of(place).startswith(".") and place.endswith(".tmp")]


def _total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    return dict(sorted(sum((Counter(count) for count in counts), Counter()).items()))


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode()
