"""What an actor does with a unit: its pictures are fetched, parsed, and their rows staged as one object.

All in one process: pictures and masks need not cross Ray's object store, nor workers start to fetch and to stage them.
Where a GPU must not wait for them, tasks on all CPUs fetch.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from segface_batch import metrics, storage
from segface_batch.inputs.fetch import fetch, unnest
from segface_batch.output import parts, records
from segface_batch.parse import SECONDS, ParseUnits


class UnitActor:
    """`parser` made with `arguments`; `staging` are storage options and S3 client, `fetching` the settings of
    `inputs.fetch.fetch`, None where units come fetched."""

    def __init__(
        self,
        parser: type[ParseUnits],
        arguments: dict[str, Any],
        staging: dict[str, Any],
        fetching: dict[str, Any] | None = None,
    ) -> None:
        self.parse, self.staging, self.fetching = parser(**arguments), staging, fetching

    def __call__(self, unit: pa.Table) -> pa.Table:
        """One row (range, its file, position in it, seqs, target), or of fetched's -> (target, errors, seconds, fatal),
        its rows staged."""
        return stage(self.parsed(unit), **self.staging)

    def parsed(self, unit: pa.Table) -> pa.Table:
        """The same -> one row of the parser's."""
        return self.parse(unit if self.fetching is None else fetched(unit, **self.fetching))


def fetched(unit: pa.Table, **settings: Any) -> pa.Table:
    """A planned unit -> one row of fetch's, and its `target`."""
    seconds = metrics.Seconds()
    with seconds.of("fetch"):
        found = fetch(unit.drop_columns("target"), **settings)
    seconds.tell()
    lengths = pc.call_function("binary_length", [unnest(found["pictures"])["data"]])
    metrics.count("segface_bytes_total", pc.call_function("sum", [lengths]).as_py() or 0)
    found = found.append_column("fetch_seconds", pa.array([seconds.spent["fetch"]], pa.float64()))
    return found.append_column("target", unit["target"])


def stage(parsed: pa.Table, *, storage_options: str | None, s3_client: str) -> pa.Table:
    """A unit of rows -> (target, errors, seconds, fatal), its rows staged."""
    target, fatal, errors = parsed["target"][0].as_py(), parsed["fatal"][0].as_py(), 0
    seconds = metrics.Seconds()
    if fatal is None:
        try:
            storage.configure(storage_options, s3_client)
            rows = unnest(parsed["rows"])
            with seconds.of("stage"):
                parts.stage(target, rows)
            errors = rows["status"].to_pylist().count(records.ERROR)
            _count(rows)
        except Exception as error:
            fatal = f"cannot write {target}: {error}"
    seconds.tell()
    spent = parsed["seconds"][0].as_py() | seconds.spent
    if "fetch_seconds" in parsed.column_names:
        spent["fetch"] = parsed["fetch_seconds"][0].as_py()
    told = {"errors": [errors], "seconds": pa.array([spent], SECONDS), "fatal": pa.array([fatal], pa.string())}
    return pa.table({"target": [target], **told})


def _count(rows: pa.Table) -> None:
    """Tell the metrics of staged rows."""
    told = rows.select(["face", "status", "error"]).to_pylist()
    pictures = Counter((row["status"], row["error"] or "") for row in told if row["face"] == 0)
    for (status, error), number in pictures.items():
        metrics.count("segface_pictures_total", number, status=status, error=error)
    metrics.count("segface_faces_total", sum(row["status"] == records.OK for row in told))
