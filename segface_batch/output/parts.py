"""Stage and publish: how rows reach the output exactly once, however often work is repeated.

    OUT/_segface/staging/range-00000/unit-00000000.arrow   rows of one unit, both tables side by side
    OUT/masks/part-00000.parquet                           then, from all staged units of the range: masks,
    OUT/_segface/parts/part-00000.json                     what the part holds,
    OUT/stats/part-00000.parquet                           and statistics, whose presence says that the range is done

Every name follows from the plan and every file is created whole and never overwritten, so that a repeated task, a
second driver or a late one finds its work done.  Staging goes when its range is published.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from segface_batch import storage
from segface_batch.inputs.plan import Plan, Range
from segface_batch.output import records

#: Readers fetch whole row groups; a thousand masks of 6 kB are 6 MB, statistics fit into one group.
MASK_ROW_GROUP = 1024


def stage(out: Path, range_index: int, rows: pa.Table) -> None:
    """Put the rows of one unit (records.staged_schema) into staging, unless they are there."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)
    storage.put(_staging(out, range_index) / _staged_name(rows["unit"][0].as_py()), sink.getvalue().to_pybytes())


def unfinished(out: Path, plan: Plan) -> dict[Range, list[int]]:
    """The units of every range that is not published whose rows are not staged; found by names alone."""
    published = set(storage.names(out / "stats", ".parquet"))
    todo: dict[Range, list[int]] = {}
    for planned in plan.ranges:
        if f"{planned.part}.parquet" not in published:
            staged = set(storage.names(_staging(out, planned.index), ".arrow"))
            todo[planned] = [unit for unit in planned.units if _staged_name(unit) not in staged]
    return todo


def publish(out: Path, planned: Range, run: Mapping[str, Any]) -> None:
    """Make the part of a range, all of whose units are staged, visible; `run` is run.json's content."""
    if f"{planned.part}.parquet" in storage.names(out / "stats", ".parquet"):
        return
    staged = [_read_staged(_staging(out, planned.index) / _staged_name(unit)) for unit in planned.units]
    rows = pa.concat_tables(staged)
    if rows.num_rows < planned.pictures:
        raise ValueError(f"{planned.part}: {rows.num_rows} rows staged for {planned.pictures} pictures")
    name = f"{planned.part}.parquet"
    metadata = records.metadata(run)
    masks = rows.select([*records.KEY, "mask"]).replace_schema_metadata(metadata | records.MASKS_METADATA)
    stats = rows.drop_columns("mask").replace_schema_metadata(metadata)
    masks_file = _put(out / "masks" / name, _parquet(masks, MASK_ROW_GROUP))
    stats_file = _parquet(stats, rows.num_rows)
    record = {
        "part": planned.part,
        "rows": rows.num_rows,
        "pictures": planned.pictures,
        "status": dict(sorted(Counter(rows["status"].to_pylist()).items())),
        "errors": dict(sorted(Counter(filter(None, rows["error"].to_pylist())).items())),
        "files": {f"masks/{name}": _fingerprint(masks_file), f"stats/{name}": _fingerprint(stats_file)},
    }
    storage.put(out / "_segface" / "parts" / f"{planned.part}.json", _json(record))
    storage.put(out / "stats" / name, stats_file)
    shutil.rmtree(_staging(out, planned.index), ignore_errors=True)


def finish(out: Path, plan: Plan) -> dict[str, Any]:
    """Write manifest.json once every range is published, and return it: all parts, with totals by status and error."""
    parts = [
        json.loads(storage.read(str(out / "_segface" / "parts" / f"{planned.part}.json"))) for planned in plan.ranges
    ]
    totals: dict[str, Any] = {key: sum(part[key] for part in parts) for key in ("rows", "pictures")}
    totals |= {key: _total(part[key] for part in parts) for key in ("status", "errors")}
    manifest = {**totals, "skipped": plan.skipped, "parts": parts}
    storage.put(out / "_segface" / "manifest.json", _json(manifest))
    shutil.rmtree(out / "_segface" / "staging", ignore_errors=True)
    return manifest


def _staging(out: Path, range_index: int) -> Path:
    return out / "_segface" / "staging" / f"range-{range_index:05d}"


def _staged_name(unit: int) -> str:
    return f"unit-{unit:08d}.arrow"


def _read_staged(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
        return reader.read_all()


def _put(path: Path, content: bytes) -> bytes:
    """What is at `path` afterwards: `content`, or what an earlier publisher put there."""
    return content if storage.put(path, content) else storage.read(str(path))


def _parquet(table: pa.Table, row_group_size: int) -> bytes:
    others = [name for name in table.column_names if name != "mask"]
    # PNG does not shrink further, and a dictionary of masks would be the masks again.
    options: dict[str, Any] = {
        "compression": {**dict.fromkeys(others, "zstd"), "mask.bytes": "none"},
        "use_dictionary": others,
    }
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, **options) as writer:
        writer.write_table(table, row_group_size=row_group_size)
    return sink.getvalue().to_pybytes()


def _fingerprint(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    return dict(sorted(sum((Counter(count) for count in counts), Counter()).items()))


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=1).encode()
