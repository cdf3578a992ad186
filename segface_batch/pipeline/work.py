"""Rows at Ray's borders: a piece of work on its way to a worker, and its report on the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from segface_batch.output.plan import PlannedPart
from segface_batch.pipeline.metrics import STAGES

#: A piece of work: the unit at a position of a part's file, all of it or only some `seqs`, and the place in staging
#: where its rows go.  `any_length`: a file may have become another one since it was planned.
SCHEMA = pa.schema(
    [
        pa.field("file", pa.string(), False),
        pa.field("position", pa.int32(), False),
        pa.field("seqs", pa.list_(pa.int32())),
        pa.field("any_length", pa.bool_(), False),
        pa.field("target", pa.string(), False),
    ]
)

#: What came of it: rows with an error, seconds by stage (null: not entered), and what must stop the run.
REPORT = pa.schema(
    [
        pa.field("target", pa.string(), False),
        pa.field("errors", pa.int64(), False),
        pa.field("seconds", pa.struct([pa.field(stage, pa.float64()) for stage in STAGES]), False),
        pa.field("fatal", pa.string()),
    ]
)

#: The encoded images of a unit, in its order.
_FETCHED = pa.list_(pa.struct([pa.field("data", pa.large_binary()), pa.field("error", pa.string())]))


@dataclass(frozen=True)
class Work:
    """A unit to annotate, or only those `seqs` of it, and the place in staging where its rows go."""

    planned: PlannedPart
    unit: int
    target: str
    seqs: tuple[int, ...] | None = None

    @property
    def position(self) -> int:
        return self.unit - self.planned.first_unit

    @property
    def images(self) -> int:
        return self.planned.sizes[self.position] if self.seqs is None else len(self.seqs)


def to_table(works: Sequence[Work], any_length: bool = False) -> pa.Table:
    """Rows of SCHEMA."""
    rows = [
        {"file": w.planned.file, "position": w.position, "seqs": w.seqs, "any_length": any_length, "target": w.target}
        for w in works
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def with_bytes(
    work: pa.Table, answers: Sequence[tuple[bytes | None, str | None]], seconds: float | None, fatal: str | None
) -> pa.Table:
    """A row of SCHEMA and what was fetched for it: the bytes or the error of each image."""
    fetched = [{"data": data, "error": error} for data, error in answers]
    work = work.append_column("fetched", pa.array([fetched], _FETCHED))
    work = work.append_column("fetch_seconds", pa.array([seconds], pa.float64()))
    return work.append_column("fatal", pa.array([fatal], pa.string()))


def report(target: str, errors: int, seconds: Mapping[str, float], fatal: str | None) -> pa.Table:
    """A row of REPORT."""
    row = {"target": target, "errors": errors, "seconds": dict(seconds), "fatal": fatal}
    return pa.Table.from_pylist([row], REPORT)
