"""One output from plan to manifest without Ray, as a process that can be killed at every write.

python -m tests.output.protocol SOURCE OUT
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

from segface_batch import storage
from segface_batch.inputs import sources
from segface_batch.output import parts, plan as plans, run as runs
from segface_batch.pipeline.metrics import Clock
from segface_batch.pipeline.resources import Resources
from segface_batch.pipeline.work import Work, to_table
from segface_batch.pipeline.worker import Worker
from tests import drivers


def with_failpoint(failpoint: str, source: str, out: str, retry: str = "") -> None:
    os.environ["SEGFACE_FAILPOINT"] = failpoint
    main(source, out, retry)


def main(source: str | tuple[str, ...], out: str, retry: str = "", part_rows: int = drivers.PART_ROWS) -> None:
    job = drivers.job(source, storage.absolute(out), part_rows=part_rows)
    out = job.output
    run = runs.read(out)
    if run is None:
        skipped: Counter[str] = Counter()
        carried, images = sources.list_images(job.inputs, skipped)
        name = plans.write(runs.plan_folder(out), images, skipped, job.part_rows, carried=carried)
        run = runs.start(out, job, None, name, carried)
    plan = runs.read_plan(out, run)
    worker, staging = Worker(job, Resources(0, 1), None), parts.Staging(out)
    for planned in plan.parts:
        if planned.name in parts.list_published(out):
            continue
        for unit in planned.units:
            if (target := staging.unit(planned, unit)) not in staging.names():
                stage(worker, planned, unit, target)
        parts.publish(out, planned, run)
    if retry and not storage.list_names(f"{out}/_segface/retries", ".done"):
        if runs.find_retry(out) is None:
            runs.begin_retry(out, parts.find_error_images(out, plan.parts))
        found = runs.find_retry(out)
        assert found is not None
        staging, planned_parts = parts.Staging(out, found.name), {planned.index: planned for planned in plan.parts}
        for index, units in found.images.items():
            planned = planned_parts[index]
            for unit, seqs in units.items():
                stage(worker, planned, unit, staging.unit(planned, unit), seqs)
            parts.republish(out, planned, run, found.name, list(units))
        runs.end_retry(out, found)
        staging.sweep()
    parts.finish(out, plan)


def stage(
    worker: Worker, planned: plans.PlannedPart, unit: int, target: str, seqs: Sequence[int] | None = None
) -> None:
    """Annotate a unit, or some images of it, as an actor does, but raise what fails."""
    work, clock = Work(planned, unit, target, None if seqs is None else tuple(seqs)), Clock()
    (row,) = to_table([work]).to_pylist()
    found, images = worker.fetch(row, clock)
    worker.stage(target, found, worker.rows(images, clock), clock)
