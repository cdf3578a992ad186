"""The pipeline: the pictures of a job become Parquet data sets of masks and class statistics, exactly once.

    plan -> fetch, parse (decode, frame, network, statistics, PNG), stage -> publish
    driver  actors                                                           tasks

The driver iterates the small rows that staging returns, and has a range published as soon as its last unit is staged.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import pyarrow as pa

from segface_batch import catalog, storage
from segface_batch.chain import MAX_RETRIES, Chain, Staged, Work, actors
from segface_batch.cluster import on_cluster, ray_running, resources, warning
from segface_batch.inputs import plan as planning, sources
from segface_batch.inputs.known import Known
from segface_batch.inputs.plan import Plan, Range
from segface_batch.job import Job
from segface_batch.model import engine as engines, weights
from segface_batch.output import events, lease, parts, run as runs
from segface_batch.output.parts import Staging
from segface_batch.output.run import Retry
from segface_batch.parse import error_rows

#: Logical CPUs of a task that publishes, which finds them wherever actors are (chain.CRUMB), and such tasks for a node.
PUBLISH_CPUS, NODE_PUBLISHES = 0.0001, 2

#: Compiling takes a minute or two and saves 0.01 to 0.2 s per picture: it pays from 500 to 4,000 pictures on, as the
#: checkpoint is (README, "Speed").
COMPILE_FROM = 2_000

#: A run ends when more units, or in the end pictures, than this and than a hundredth of all kill their workers.
MOST_CRASHES = 16


class Progress(Protocol):
    """Who is told how a run goes on."""

    def phase(self, what: str) -> None:
        """A new phase begins."""

    def note(self, text: str) -> None:
        """Something that was decided."""

    def pictures(self, done: int, total: int, errors: int) -> None:
        """`done` of the plan's `total` pictures have rows; `errors` of this run's have no mask."""


class Silence:
    """Nobody is told."""

    def phase(self, what: str) -> None: ...

    def note(self, text: str) -> None: ...

    def pictures(self, done: int, total: int, errors: int) -> None: ...


@dataclass(frozen=True)
class Summary:
    """How a run ended: rows of the whole output by status and error, what the inputs held besides pictures, and the
    pictures that this run parsed in `seconds` (from the first unit handed out to the last row written)."""

    output: str
    pictures: int
    status: dict[str, int]
    errors: dict[str, int]
    skipped: dict[str, int]
    parsed: int
    seconds: float


def annotate(job: Job, progress: Progress | None = None) -> Summary:
    """Run a job to its end; what an earlier run of the same job finished is kept.

    ValueError and OSError, in one line, for what the user can mend; RuntimeError where a worker fails.
    """
    progress = progress or Silence()
    storage.configure(job.storage_options, job.s3_client)
    out = storage.absolute(job.output)
    sha256 = weights_of(job, progress)
    run = runs.read(out)
    job = with_engine(job, run, progress)
    if run is None:
        _check_is_empty(out)
        name, carried = _plan(job, out, progress)
        job = _with_compiler(job, planning.read(runs.plan_folder(out), [name]).pictures, progress)
        run = runs.start(out, job, sha256, name, carried)
    else:
        runs.check(out, run, job, sha256)
        if job.new:
            _plan_new(job, out, run, progress)
    plan = runs.plan(out, run)
    driver = _Driver(Chain(job, out, sha256), plan, run, progress)
    todo = parts.unfinished(out, plan)
    if todo or job.retry_errors or runs.unfinished_retry(out):
        with lease.held(out, job.takeover) as driver.lease, ExitStack() as stack:
            if todo:
                driver.start_ray(stack, sum(map(len, todo.values())))
                driver.finish(todo)
            if job.retry_errors and runs.unfinished_retry(out) is None:
                runs.begin_retry(out, parts.error_pictures(out, plan.ranges))
            if (retry := runs.unfinished_retry(out)) is not None:
                driver.start_ray(stack, sum(map(len, retry.pictures.values())))
                driver.retry(retry)
    manifest = parts.finish(out, plan)
    status, errors = manifest["status"], manifest["errors"]
    return Summary(job.output, plan.pictures, status, errors, plan.skipped, driver.parsed, driver.seconds)


def weights_of(job: Job, progress: Progress) -> str:
    """The sha256 of the job's weights, which are fetched if they must be."""
    progress.phase(f"getting the weights of {job.checkpoint}")
    file = weights.locate(catalog.find(job.checkpoint), job.weights, job.revision)
    weights.check_kind(file)
    sha256 = weights.sha256(file)
    if job.weights_sha256 not in (None, sha256):
        raise ValueError(f"{file} has sha256 {sha256}, not {job.weights_sha256}; get the file again")
    if job.faces == "detect" and job.detector == "yunet":
        from segface_batch.model import yunet

        yunet.located()  # fails here where it would in every actor
    return sha256


def with_engine(job: Job, run: dict[str, Any] | None, progress: Progress) -> Job:
    """The job with the engine that the run has, or with the one that is best here; the results' last bits depend on it,
    and on whether the network is compiled."""
    if run is not None:
        settings = run["settings"]
        engine = settings.get("engine", "auto") if job.engine == "auto" else job.engine
        return replace(job, engine=engine, compile=job.compile and settings.get("compile", False))
    if job.engine != "auto":
        return job
    # Of the machines of a cluster, and of a parser that somebody else wrote, we know nothing.
    if on_cluster() or job.parser is not None or job.num_gpus or job.compile:
        return replace(job, engine="torch")
    job = replace(job, engine=engines.choose("auto", job.device))
    progress.note(f"the network is run by {job.engine}, {job.precision}; --engine chooses another")
    return job


def _with_compiler(job: Job, pictures: int, progress: Progress) -> Job:
    """The job without `compile` where that is no gain."""
    if not job.compile:
        return job
    reason = None
    if pictures < COMPILE_FROM:
        reason = f"{pictures:,} pictures take less time than compiling, which pays from about {COMPILE_FROM:,} on"
    elif not on_cluster():
        reason = engines.no_compiler()
    if reason is None:
        return job
    progress.note(f"the network is not compiled: {reason}")
    return replace(job, compile=False)


def _check_is_empty(out: str) -> None:
    """ValueError where an output on a store has other objects (Job checks folders)."""
    if storage.is_url(out):
        for entry in itertools.islice(storage.listing(out), 1000):
            if not entry.place.startswith(storage.join(out, "_segface", "")):
                raise ValueError(f"'{out}' holds other objects ({entry.place}); name a new prefix for the output")


def _plan(job: Job, out: str, progress: Progress) -> tuple[str, pa.Schema]:
    """List and plan the pictures; the plan's name and the manifest's columns that are carried."""
    skipped: Counter[str] = Counter()
    carried, pictures = listed(job, skipped, progress)
    return planning.write(runs.plan_folder(out), pictures, skipped, job.part_rows, carried=carried), carried


def listed(job: Job, skipped: Counter[str], progress: Progress) -> tuple[pa.Schema, Iterator[sources.Picture]]:
    """The manifest's columns that are carried, and the pictures of the job, of which there is one at least."""
    progress.phase("listing the pictures")
    carried, pictures = _pictures(job, skipped)
    first = next(pictures, None)
    if first is None:
        besides = ", ".join(f"{count} {kind}" for kind, count in skipped.items()) or "nothing else"
        where = " or ".join(f"'{place}'" for place in job.inputs)
        raise ValueError(f"no pictures in {where} ({besides}); give the folder or manifest that has them")
    return carried, itertools.chain([first], pictures)


def _plan_new(job: Job, out: str, run: dict[str, Any], progress: Progress) -> None:
    """Plan the pictures that no plan of the run has yet, as parts after its own."""
    progress.phase("looking for new pictures")
    plan, skipped = runs.plan(out, run), Counter[str]()
    known = Known(planning.read_range(runs.plan_folder(out), planned.file) for planned in plan.ranges)
    carried, pictures = _pictures(job, skipped)
    pictures = (picture for picture in pictures if picture not in known)
    first = next(pictures, None)
    if first is not None:
        name = planning.write(
            runs.plan_folder(out),
            itertools.chain([first], pictures),
            skipped,
            job.part_rows,
            carried=carried,
            first_unit=sum(len(planned.units) for planned in plan.ranges),
            first_range=len(plan.ranges),
        )
        runs.add(out, name)


def _pictures(job: Job, skipped: Counter[str]) -> tuple[pa.Schema, Iterator[sources.Picture]]:
    return sources.pictures(
        job.inputs,
        skipped,
        placed_by=job.placed_by,
        columns=job.columns,
        image_column=job.image_column,
    )


@dataclass
class _Driver:
    """What one run does to its output, and has done."""

    chain: Chain
    plan: Plan
    run: dict[str, Any]
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
        """Ray, and the record of what is done there, until the stack ends."""
        if self.events is not None:
            return
        self.progress.phase("starting Ray")
        stack.enter_context(ray_running())
        if (words := warning()) is not None:
            self.progress.note(f"warning: {words}")
        job, cluster = self.chain.job, resources()
        self.most_publishing = NODE_PUBLISHES * int(cluster["nodes"])
        about: dict[str, Any] = {"units": units, "pictures": self.plan.pictures, "cluster": cluster}
        if units:  # else parts are to be published, and no actors needed
            num_gpus, threads, (least, most) = actors(job, units)
            about |= {"actors": [least, most], "threads": threads, "num_gpus": num_gpus}
            self.progress.phase("loading the model")
        self.events = stack.enter_context(events.told(self.chain.out, job, **about))

    def finish(self, todo: dict[Range, list[int]]) -> None:
        """Parse, stage and publish what is to do."""
        started, staging = time.monotonic(), Staging(self.chain.out)
        works = [Work(planned, unit, staging.unit(planned, unit)) for planned, units in todo.items() for unit in units]
        self.left += sum(work.pictures for work in works)
        waiting = {planned: len(units) for planned, units in todo.items()}
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
        """Parse pictures that had errors once more, and replace their rows."""
        started, out = time.monotonic(), self.chain.out
        staging, staged = Staging(out, retry.name), Staging(out, retry.name).names()
        ranges = {planned.index: planned for planned in self.plan.ranges}
        works = [
            Work(ranges[index], unit, staging.unit(ranges[index], unit), tuple(seqs))
            for index, units in retry.pictures.items()
            for unit, seqs in units.items()
        ]
        todo = [work for work in works if work.target not in staged]
        self.left += sum(work.pictures for work in todo)
        for _ in self._stage(todo, staging, again=True):
            pass
        for index, units in retry.pictures.items():
            self._publish(ranges[index], parts.republish, retry.name, list(units))
        self._collect(left=0)
        runs.end_retry(out, retry)
        staging.sweep()
        self.seconds += time.monotonic() - started

    def _stage(self, works: Sequence[Work], staging: Staging, again: bool = False) -> Iterator[Work]:
        """Each piece of work when all its rows are staged.

        A unit that does not come back, because its worker died, is tried alone, and then picture by picture; a picture
        that dies alone becomes an error row.
        """
        most = max(MOST_CRASHES, len(works) // 100)
        back: set[str] = set()
        for alone in (False, True):
            lost = [work for work in works if work.target not in back]
            for staged in self._told(self.chain.run(lost, alone=alone, may_lose=most, again=again)):
                back.add(staged.work.target)
                yield staged.work
        lost = [work for work in works if work.target not in back]
        if lost:
            self._stage_one_by_one(lost, staging, again)
            yield from lost

    def _stage_one_by_one(self, works: Sequence[Work], staging: Staging, again: bool) -> None:
        singles = {
            work: [
                Work(work.planned, work.unit, staging.picture(work.planned, work.unit, seq), (seq,))
                for seq in work.seqs or range(work.pictures)
            ]
            for work in works
        }
        staged = staging.names()
        todo = [single for pieces in singles.values() for single in pieces if single.target not in staged]
        most = max(MOST_CRASHES, self.plan.pictures // 100)
        back = {s.work.target for s in self._told(self.chain.run(todo, alone=True, may_lose=most, again=again))}
        for single in todo:
            if single.target not in back:
                parts.stage(single.target, self._crashed(single))
                self._tell(1, 1, {})
        for work, pieces in singles.items():
            parts.join(work.target, [single.target for single in pieces])

    def _crashed(self, single: Work) -> pa.Table:
        """The row of a picture that no worker outlives."""
        unit = planning.read_unit(runs.plan_folder(self.chain.out), single.planned.file, single.position)
        wanted = [seq in (single.seqs or ()) for seq in unit["seq"].to_pylist()]
        dataset = catalog.find(self.chain.job.checkpoint).dataset
        return error_rows(unit.filter(pa.array(wanted)), "crashed", dataset, self.plan.carried)

    def _told(self, staged: Iterable[Staged]) -> Iterator[Staged]:
        for one in staged:
            self._tell(one.work.pictures, one.errors, one.seconds)
            yield one

    def _tell(self, pictures: int, errors: int, seconds: dict[str, float]) -> None:
        self.parsed += pictures
        self.errors += errors
        done = self.plan.pictures - self.left + self.parsed
        self.progress.pictures(done, self.plan.pictures, self.errors)
        if self.lease is not None:
            self.lease.check()
            self.lease.tell(done, self.plan.pictures)
        if self.events is not None:
            self.events.unit(pictures, errors, seconds, done, self.plan.pictures)
        most = self.chain.job.max_errors
        if most is not None and self.errors > most:
            raise RuntimeError(
                f"{self.errors:,} pictures have errors, more than --max-errors {most} (what is done is kept; "
                f"segface-batch query '{self.chain.job.output}' \"select error, count(*) from stats group by error\" "
                "counts those in finished parts)"
            )
        self._collect()

    def _publish(self, planned: Range, write: Any = parts.publish, *arguments: Any) -> None:
        """Have a worker write a part, as soon as few enough are being written."""
        import ray

        self._collect(left=self.most_publishing - 1)
        task: Any = ray.remote(num_cpus=PUBLISH_CPUS, max_retries=MAX_RETRIES)(_configured)
        options = (self.chain.job.storage_options, self.chain.job.s3_client)
        self.publishing[task.remote(write, *options, self.chain.out, planned, self.run, *arguments)] = planned.part

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
            self.events.tell("published", parts=finished)


def _configured(work: Any, storage_options: str | None, s3_client: str, *arguments: Any) -> None:
    """Run a function that writes in a worker."""
    storage.configure(storage_options, s3_client)
    work(*arguments)
