"""One output from plan to manifest without Ray, as a process that can be killed at every write.

python -m tests.output.protocol SOURCE OUT
"""

from __future__ import annotations

import os
from collections import Counter

import pyarrow as pa

from segface_batch import storage
from segface_batch.inputs import sources
from segface_batch.output import parts, plan as planning, run as runs
from segface_batch.pipeline.fetch import fetch, unnest
from tests import drivers, stand_in


def with_failpoint(failpoint: str, source: str, out: str, retry: str = "") -> None:
    os.environ["SEGFACE_FAILPOINT"] = failpoint
    main(source, out, retry)


def main(source: str, out: str, retry: str = "", part_rows: int = drivers.PART_ROWS) -> None:
    job = drivers.job(source, out, part_rows=part_rows)
    out = storage.absolute(out)
    run = runs.read(out)
    if run is None:
        skipped: Counter[str] = Counter()
        carried, images = sources.list_images(job.inputs, skipped)
        name = planning.write(runs.plan_folder(out), images, skipped, job.part_rows, carried=carried)
        run = runs.start(out, job, "0" * 64, name, carried)
    plan = runs.plan(out, run)
    parser = stand_in.Quick({"checkpoint": drivers.CHECKPOINT}, job.max_pixels)
    staging = parts.Staging(out)
    for planned in plan.parts:
        if planned.name in parts.published(out):
            continue
        for unit in planned.units:
            if staging.unit(planned, unit) not in staging.names():
                parts.stage(staging.unit(planned, unit), _rows(parser, out, planned, unit, None))
        parts.publish(out, planned, run)
    if retry and not storage.list_names(f"{out}/_segface/retries", ".done"):
        if runs.unfinished_retry(out) is None:
            runs.begin_retry(out, parts.error_images(out, plan.parts))
        found = runs.unfinished_retry(out)
        assert found is not None
        staging, planned_parts = parts.Staging(out, found.name), {planned.index: planned for planned in plan.parts}
        for index, units in found.images.items():
            for unit, seqs in units.items():
                parts.stage(
                    staging.unit(planned_parts[index], unit), _rows(parser, out, planned_parts[index], unit, seqs)
                )
            parts.republish(out, planned_parts[index], run, found.name, list(units))
        runs.end_retry(out, found)
        staging.sweep()
    parts.finish(out, plan)


def _rows(
    parser: stand_in.Quick, out: str, planned: planning.PlannedPart, unit: int, seqs: list[int] | None
) -> pa.Table:
    row = {
        "range": pa.array([planned.index], pa.int32()),
        "file": [planned.file],
        "position": pa.array([unit - planned.first_unit], pa.int32()),
        "seqs": pa.array([seqs], pa.list_(pa.int32())),
    }
    parsed = parser(fetch(pa.table(row), plan_folder=runs.plan_folder(out)))
    assert parsed["fatal"].to_pylist() == [None]
    return unnest(parsed["rows"])
