"""Check that an output is complete and undamaged: everything is recomputed from the plan and the files.

It reads the files itself rather than by `reader.open_output`, which refuses an output of which something is missing.
Nothing is changed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from segface_batch import storage
from segface_batch.output import parts, plan as plans, run as runs, schema
from segface_batch.output.plan import Plan, PlannedPart
from segface_batch.storage import ranged

#: What can be wrong, the harmless first.
MISSING, ORPHANED, DOUBLED, DAMAGED = "missing", "orphaned", "doubled", "damaged"

#: Files read at the same time; each may have 100 MB or more.
THREADS = 4

#: Bytes of one request where only the key columns are read.
_BLOCK = 2**18

_STATS_COLUMNS = [*schema.SHARED, "n_faces", "status", "error"]


@dataclass
class Report:
    """What an output holds: `findings` are lines by kind; without any the output is complete."""

    images: int
    parts: int
    published: int
    status: dict[str, int]
    findings: dict[str, list[str]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return not self.findings


def verify(out: str, quick: bool = False) -> Report:
    """Check that every planned image has its rows in all tables exactly once, that records and manifest count these
    rows, that the files are those that were written (sha256; not with `quick`, which reads key columns only), and that
    nothing else lies among them.

    FileNotFoundError where there is no output.
    """
    out = storage.absolute(out)
    run = runs.read(out)
    if run is None:
        raise FileNotFoundError(f"'{out}' is no output: it has no _segface/run.json")
    if run["schema_version"] != schema.SCHEMA_VERSION:
        made_by = run["versions"]["segface-batch"]
        raise ValueError(f"'{out}' was made by segface-batch {made_by} with other columns; verify it with that version")
    plan = runs.read_plan(out, run)
    published = parts.list_published(out)
    with ThreadPoolExecutor(THREADS) as threads:
        found = [planned for planned in plan.parts if planned.name in published]
        checked = list(threads.map(lambda planned: list(_part_findings(out, planned, quick)), found))
    findings = [found for lines in checked for found in lines]
    findings += _unpublished(out, plan, published)
    findings += _strangers(out, plan, published)
    records = [record for planned in found if (record := _read_record(out, planned)) is not None]
    retry = runs.find_retry(out)
    if len(found) == len(plan.parts):
        findings += _manifest_findings(out, plan, records, retry is not None)
    if retry is not None:
        count = sum(len(seqs) for units in retry.images.values() for seqs in units.values())
        findings.append((MISSING, f"{count:,} images with errors are being tried again"))
    by_kind: dict[str, list[str]] = {}
    for kind, line in findings:
        by_kind.setdefault(kind, []).append(line)
    status = dict(sorted(sum((Counter(record["status"]) for record in records), Counter[str]()).items()))
    return Report(plan.images, len(plan.parts), len(found), status, by_kind)


Finding = tuple[str, str]


def _part_findings(out: str, planned: PlannedPart, quick: bool) -> Iterator[Finding]:
    name = f"{planned.name}.parquet"
    record = _read_record(out, planned)
    if record is None:
        yield DAMAGED, f"_segface/parts/{planned.name}.json is missing or no record"
        return
    tables: dict[str, pa.Table] = {}
    for data_set in reversed(schema.TABLES):
        columns = _STATS_COLUMNS if data_set == schema.STATS else [*schema.SHARED]
        try:
            place = storage.join(out, data_set, name)
            if quick:
                with ranged.open_ranged(place, storage.get_size(place) or 0, _BLOCK) as file:
                    tables[data_set] = pq.read_table(pa.PythonFile(file), columns=columns)
                continue
            content = storage.read(place)
            if parts.fingerprint(content) != record["files"][f"{data_set}/{name}"]:
                yield DAMAGED, f"{data_set}/{name} is not the file that was written (sha256)"
            tables[data_set] = pq.read_table(pa.BufferReader(content), columns=columns)
        except FileNotFoundError:
            yield DAMAGED, f"{data_set}/{name} is missing though stats has that part"
        except (pa.ArrowException, KeyError) as error:
            yield DAMAGED, f"{data_set}/{name} cannot be read: {str(error).splitlines()[0]}"
    if len(tables) < len(schema.TABLES):
        return
    stats = tables.pop(schema.STATS)
    for data_set, other in tables.items():
        if not other.equals(stats.select(other.column_names)):
            yield DAMAGED, f"{data_set}/{name} has other rows than stats/{name}"
    try:
        expected = plans.read_part(runs.plan_folder(out), planned.file).select(["unit", "seq", "image_id"])
    except (OSError, pa.ArrowException) as error:
        yield DAMAGED, f"_segface/plan/{planned.file} cannot be read: {str(error).splitlines()[0]}"
        return
    yield from _key_findings(planned, stats, expected)
    for name, count in parts.counts(stats).items():
        if record[name] != count:
            yield DAMAGED, f"_segface/parts/{planned.name}.json says {name} {record[name]}, counted are {count}"


def _key_findings(planned: PlannedPart, stats: pa.Table, expected: pa.Table) -> Iterator[Finding]:
    """Every planned image once, its faces numbered from 0, in the plan's order."""
    unit, seq, face, n_faces = (stats[name].to_numpy().astype(np.int64) for name in (*schema.KEY, "n_faces"))
    found = unit << 32 | seq
    planned_keys = expected["unit"].to_numpy().astype(np.int64) << 32 | expected["seq"].to_numpy()
    names = dict(zip(planned_keys.tolist(), expected["image_id"].to_pylist(), strict=True))
    for key in np.setdiff1d(planned_keys, found).tolist():
        yield MISSING, f"{planned.name}: no row for {names[key]}"
    for key in np.setdiff1d(found, planned_keys).tolist():
        yield ORPHANED, f"{planned.name}: unit {key >> 32}, seq {key & 0xFFFFFFFF} is not in the plan"
    images, first, count = np.unique(found, return_index=True, return_counts=True)
    for key, at, rows in zip(images.tolist(), first.tolist(), count.tolist(), strict=True):
        if key in names and rows != max(1, n_faces[at]):
            yield DOUBLED, f"{planned.name}: {rows} rows for {names[key]}, {max(1, n_faces[at])} expected"
    rows = np.arange(len(found))
    if not np.array_equal(np.lexsort((face, found)), rows):
        yield DAMAGED, f"{planned.name}: rows are not in the plan's order"
    elif not np.array_equal(face, rows - np.repeat(first, count)):
        yield DAMAGED, f"{planned.name}: faces are not numbered from 0"
    ids = [names.get(key) for key in found.tolist()]
    if wrong := sum(given != known for given, known in zip(stats["image_id"].to_pylist(), ids, strict=True) if known):
        yield DAMAGED, f"{planned.name}: {wrong} rows have another image_id than the plan"
    outcomes = zip(stats["status"].to_pylist(), stats["error"].to_pylist(), strict=True)
    if any((status == schema.ERROR) != (error is not None) for status, error in outcomes):
        yield DAMAGED, f"{planned.name}: rows with an error and another status, or the other way round"


def _unpublished(out: str, plan: Plan, published: set[str]) -> Iterator[Finding]:
    todo = [planned for planned in plan.parts if planned.name not in published]
    if not todo:
        return
    staging = parts.Staging(out)
    staged = staging.names()
    for planned in todo:
        count = sum(staging.unit(planned, unit) in staged for unit in planned.units)
        yield (
            MISSING,
            f"{planned.name}: {planned.images:,} images, {count:,} of {len(planned.units):,} units are staged",
        )


def _strangers(out: str, plan: Plan, published: set[str]) -> Iterator[Finding]:
    """Objects that belong to no part, and what a crash left."""
    known = {planned.name for planned in plan.parts}
    folders = [*((table, ".parquet", known) for table in reversed(schema.TABLES)), ("_segface/parts", ".json", known)]
    for folder, suffix, allowed in folders:
        place = storage.join(out, *folder.split("/"))
        for entry in storage.list_objects(place):
            name = entry.place[len(place) + 1 :]
            if name.removesuffix(suffix) not in allowed or not name.endswith(suffix):
                yield ORPHANED, f"{folder}/{name} belongs to no part of the plan; no run needs it"
    late = {planned.index: planned for planned in plan.parts if planned.name in published}
    staging = parts.Staging(out)
    for planned in late.values() if len(late) == len(plan.parts) else ():
        if leftover := storage.list_names(staging.part(planned), ".arrow"):
            yield (
                ORPHANED,
                f"{staging.part(planned)} holds {len(leftover)} units of a finished part; no run needs them",
            )


def _manifest_findings(out: str, plan: Plan, records: list[dict[str, Any]], retrying: bool) -> Iterable[Finding]:
    try:
        manifest = json.loads(storage.read(storage.join(out, "_segface", "manifest.json")))
    except FileNotFoundError:
        yield MISSING, "_segface/manifest.json"
        return
    except ValueError:
        yield DAMAGED, "_segface/manifest.json is no JSON"
        return
    if manifest != parts.summed(plan, records):
        kind = MISSING if retrying or manifest["images"] < plan.images else DAMAGED
        yield kind, "_segface/manifest.json is not that of these parts"


def _read_record(out: str, planned: PlannedPart) -> dict[str, Any] | None:
    try:
        record = json.loads(storage.read(parts.record_place(out, planned)))
    except (FileNotFoundError, ValueError):
        return None
    return (
        record if {"part", "images", "rows", "images_by_status", "status", "errors", "files"} <= record.keys() else None
    )


def lines(report: Report, out: str, most: int = 10) -> list[str]:
    """The report for a person: findings by kind, at most `most` of each, and what to do."""
    text = [f"{report.published:,} of {report.parts:,} parts are published"]
    if report.status:
        text.append("rows: " + ", ".join(f"{count:,} {status}" for status, count in report.status.items()))
    for kind, found in report.findings.items():
        text += [f"{kind}: {line}" for line in found[:most]]
        if len(found) > most:
            text.append(f"{kind}: and {len(found) - most:,} more")
    if report.complete:
        text.append(f"complete: each of {report.images:,} images is there exactly once")
    elif set(report.findings) == {MISSING}:
        text.append(f"not complete: the annotate command that made '{out}' goes on with it")
    elif set(report.findings) <= {MISSING, ORPHANED}:
        text.append("remove the orphaned objects, unless a run is working on this output")
    else:
        text.append("damaged: annotate into a new folder, or restore the named files from a copy")
    return text
