"""What the actors do with a unit: its pictures become rows, and its rows one object in staging.

Both in one process: masks need not cross Ray's object store, nor workers start to stage them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pyarrow as pa

from segface_batch import metrics, storage
from segface_batch.inputs.fetch import unnest
from segface_batch.output import parts, records
from segface_batch.parse import SECONDS, ParseUnits


class ParseAndStage:
    """An actor: `parser` made with `arguments`, and the storage that staging is on."""

    def __init__(
        self, parser: type[ParseUnits], arguments: dict[str, Any], storage_options: str | None, s3_client: str
    ) -> None:
        self.parse, self.storage_options, self.s3_client = parser(**arguments), storage_options, s3_client

    def __call__(self, unit: pa.Table) -> pa.Table:
        """One row of fetch's -> (target, errors, seconds, fatal), its rows staged."""
        return stage(self.parse(unit), storage_options=self.storage_options, s3_client=self.s3_client)


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
