"""The driver: the images of a job become Parquet data sets of masks and statistics, exactly once.

    plan -> fetch, decode, detect, network, encode, stage -> publish
    driver  workers (GPUs: fetch in tasks)                   tasks

The driver iterates the workers' reports and has a part published as soon as its last unit is staged.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from segface_batch import storage
from segface_batch.job import Job
from segface_batch.output import events, lease, parts, plan as plans, run as runs, schema
from segface_batch.output.face import Face, FetchedImage
from segface_batch.output.parts import Staging
from segface_batch.output.plan import Plan, PlannedPart
from segface_batch.output.run import Retry
from segface_batch.pipeline import prepare
from segface_batch.pipeline.cluster import ray_running, resources, warning
from segface_batch.pipeline.dataset import MAX_RETRIES, reports
from segface_batch.pipeline.planning import check_is_empty, plan_new_images, write_plan
from segface_batch.pipeline.resources import fewer_for_memory, share
from segface_batch.pipeline.summary import Summary
from segface_batch.pipeline.work import Work
from segface_batch.progress import Progress, Silence

#: Logical CPUs of a task that publishes, which finds them wherever workers are (resources.SPARE_CPUS), and the number
#: of such tasks for a node.
PUBLISH_CPUS, NODE_PUBLISHES = 0.0001, 2

#: A run ends when more units, or in the end images, than this and than a hundredth of all kill their workers.
MOST_CRASHES = 16


def annotate(job: Job, progress: Progress | None = None) -> Summary:
    """Run a job to its end; what an earlier run of the same job finished is kept.

    ValueError and OSError, in one line, for what the user can fix; RuntimeError where a worker fails.
    """
    progress, shown = progress or Silence(), job.output
    storage.configure(job.storage_options, job.s3_client)
    job = prepare.located(job)
    out, sha256 = job.output, prepare.weights_sha256(job, progress)
    run = runs.read(out)
    job = prepare.with_engine(job, run, progress)
    if run is None:
        check_is_empty(out)
        name, carried = write_plan(job, progress)
        if job.compile:
            job = prepare.with_compiler(job, plans.read(runs.plan_folder(out), [name]).images, progress)
        run = runs.start(out, job, sha256, name, carried)
    else:
        runs.check(out, run, job, sha256)
        if job.new:
            plan_new_images(job, run, progress)
    plan = runs.read_plan(out, run)
    driver = _Driver(prepare.for_workers(job), sha256, plan, run, progress)
    todo = parts.find_unfinished(out, plan)
    if todo or job.retry_errors or runs.find_retry(out):
        with lease.hold(out, job.takeover) as driver.lease, ExitStack() as stack:
            if todo:
                driver.start_ray(stack, sum(map(len, todo.values())))
                driver.finish(todo)
            if job.retry_errors and runs.find_retry(out) is None:
                runs.begin_retry(out, parts.find_error_images(out, plan.parts))
            if (retry := runs.find_retry(out)) is not None:
                driver.start_ray(stack, sum(map(len, retry.images.values())))
                driver.retry(retry)
    return Summary.of(shown, parts.finish(out, plan), driver.parsed, driver.seconds)


@dataclass
class _Driver:
    """What one run does to its output, and has done."""

    job: Job
    weights_sha256: str | None
    plan: Plan
    run: Mapping[str, Any]
    progress: Progress
    lease: lease.Lease | None = None
    events: events.Events | None = None
    parsed: int = 0
    errors: int = 0
    left: int = 0
    seconds: float = 0.0
    publishing: dict[Any, str] = field(default_factory=dict)
    most_publishing: int = NODE_PUBLISHES

    def start_ray(self, stack: ExitStack, units: int) -> None:
        """Start Ray, and the record of what is done there, until the stack ends."""
        if self.events is not None:
            return
        self.progress.phase("starting Ray")
        stack.enter_context(ray_running())
        if (words := warning()) is not None:
            self.progress.note(f"warning: {words}")
        cluster = resources()
        self.most_publishing = NODE_PUBLISHES * int(cluster["nodes"])
        about: dict[str, Any] = {"units": units, "images": self.plan.images, "cluster": cluster}
        if units:  # else parts are to be published, and no workers needed
            each, (least, most) = share(self.job, units)
            about |= {"actors": [least, most], "threads": each.threads, "num_gpus": each.num_gpus}
            if (note := fewer_for_memory(self.job, units, each, most)) is not None:
                self.progress.note(note)
            self.progress.phase("loading the model")
        self.events = stack.enter_context(events.record(self.job.output, self.job, **about))

    def finish(self, todo: dict[PlannedPart, list[int]]) -> None:
        """Parse, stage and publish what is to do."""
        started, staging = time.monotonic(), Staging(self.job.output)
        works = [Work(planned, unit, staging.unit(planned, unit)) for planned, units in todo.items() for unit in units]
        self.left += sum(work.images for work in works)
        waiting = {planned: len(units) for planned, units in todo.items()}
        self.progress.start(self.plan.images - self.left + self.parsed)
        for planned, count in waiting.items():
            if count == 0:
                self._publish(planned)
        for work in self._stage(works, staging):
            waiting[work.planned] -= 1
            if waiting[work.planned] == 0:
                self._publish(work.planned)
        self._collect(left=0)
        self.seconds += time.monotonic() - started

    def retry(self, retry: Retry) -> None:
        """Parse images that had errors once more, and replace their rows."""
        started, out = time.monotonic(), self.job.output
        staging = Staging(out, retry.name)
        staged = staging.names()
        planned_parts = {planned.index: planned for planned in self.plan.parts}
        works = [
            Work(planned_parts[index], unit, staging.unit(planned_parts[index], unit), tuple(seqs))
            for index, units in retry.images.items()
            for unit, seqs in units.items()
        ]
        todo = [work for work in works if work.target not in staged]
        self.left += sum(work.images for work in todo)
        self.progress.start(self.plan.images - self.left + self.parsed)
        for _ in self._stage(todo, staging, again=True):
            pass
        for index, units in retry.images.items():
            self._publish(planned_parts[index], parts.republish, retry.name, list(units))
        self._collect(left=0)
        runs.end_retry(out, retry)
        staging.sweep()
        self.seconds += time.monotonic() - started

    def _stage(self, works: Sequence[Work], staging: Staging, again: bool = False) -> Iterator[Work]:
        """Each piece of work when all its rows are staged.

        A unit that does not come back, because its worker died, is tried alone, and then image by image; an image that
        dies alone becomes an error row.
        """
        most = max(MOST_CRASHES, len(works) // 100)
        back: set[str] = set()
        for alone in (False, True):
            lost = [work for work in works if work.target not in back]
            for work in self._reported(lost, alone, most, again):
                back.add(work.target)
                yield work
        lost = [work for work in works if work.target not in back]
        if lost:
            self._stage_one_by_one(lost, staging, again)
            yield from lost

    def _stage_one_by_one(self, works: Sequence[Work], staging: Staging, again: bool) -> None:
        singles = {
            work: [
                Work(work.planned, work.unit, staging.image(work.planned, work.unit, seq), (seq,))
                for seq in work.seqs or range(work.images)
            ]
            for work in works
        }
        staged = staging.names()
        todo = [single for pieces in singles.values() for single in pieces if single.target not in staged]
        most = max(MOST_CRASHES, self.plan.images // 100)
        back = {work.target for work in self._reported(todo, True, most, again)}
        for single in todo:
            if single.target not in back:
                parts.stage(single.target, self._crashed(single))
                self._tell(1, 1, {})
        for work, pieces in singles.items():
            parts.join(work.target, [single.target for single in pieces])

    def _crashed(self, single: Work) -> pa.Table:
        """The row of an image that kills every worker."""
        unit = plans.read_unit(runs.plan_folder(self.job.output), single.planned.file, single.position, single.seqs)
        carried = dict(zip(unit.carried.names, unit.images[0].carried, strict=True))
        image = FetchedImage(unit.number, unit.seqs[0], unit.images[0], carried)
        dataset = self.job.model.dataset
        row = schema.row(Face(image, error="crashed"), dataset)
        return schema.to_table([row], dataset, self.plan.carried)

    def _reported(self, works: Sequence[Work], alone: bool, may_lose: int, again: bool) -> Iterator[Work]:
        """Each piece of work when its worker reports it."""
        by_target = {work.target: work for work in works}
        passed: Iterable[dict[str, Any]] = reports(
            self.job, self.weights_sha256, works, alone=alone, may_lose=may_lose, any_length=again
        )
        for report in passed:
            work = by_target[report["target"]]
            seconds = {stage: spent for stage, spent in report["seconds"].items() if spent is not None}
            self._tell(work.images, report["errors"], seconds)
            yield work

    def _tell(self, images: int, errors: int, seconds: Mapping[str, float]) -> None:
        self.parsed += images
        self.errors += errors
        done = self.plan.images - self.left + self.parsed
        self.progress.images(done, self.plan.images, self.errors)
        if self.lease is not None:
            self.lease.check()
            self.lease.report(done, self.plan.images)
        if self.events is not None:
            self.events.add_unit(images, errors, seconds, done, self.plan.images)
        most = self.job.max_errors
        if most is not None and self.errors > most:
            raise RuntimeError(
                f"{self.errors:,} images have errors, more than --max-errors {most} (what is done is kept; "
                f"segface-batch query '{self.job.output}' \"select error, count(*) from stats group by error\" "
                "counts those in finished parts)"
            )
        self._collect()

    def _publish(self, planned: PlannedPart, write: Any = parts.publish, *arguments: Any) -> None:
        """Have a worker write a part, as soon as few enough are being written."""
        import ray

        self._collect(left=self.most_publishing - 1)
        task: Any = ray.remote(num_cpus=PUBLISH_CPUS, max_retries=MAX_RETRIES)(_write_part)
        self.publishing[task.remote(write, self.job, planned, self.run, *arguments)] = planned.name

    def _collect(self, left: int | None = None) -> None:
        """Raise what publishing raised; wait until no more than `left` parts are being published."""
        import ray

        tasks = [*self.publishing]
        if not tasks:
            return
        if left is not None and len(tasks) > left:
            ray.wait(tasks, num_returns=len(tasks) - left)
        done, _ = ray.wait(tasks, num_returns=len(tasks), timeout=0)
        ray.get(done)
        finished = sorted(self.publishing.pop(task) for task in done)
        if finished and self.events is not None:
            self.events.add("published", parts=finished)


def _write_part(write: Any, job: Job, planned: PlannedPart, run: Mapping[str, Any], *arguments: Any) -> None:
    """Publish a part in a task."""
    storage.configure(job.storage_options, job.s3_client)
    write(job.output, planned, run, *arguments)
