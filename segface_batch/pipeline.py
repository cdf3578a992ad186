"""The pipeline: the pictures of a job become Parquet data sets of masks and class statistics, exactly once.

    plan -> fetch -> parse (decode, frame, network, statistics, PNG) -> stage -> publish
    driver  tasks    actors                                             tasks    tasks

One row of the Ray data set is one unit from fetch to stage.  The driver iterates the small rows that staging returns.
"""

from __future__ import annotations

import itertools
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from segface_batch import catalog
from segface_batch.inputs import plan as planning, sources
from segface_batch.inputs.fetch import fetch, unnest
from segface_batch.inputs.plan import Plan, Range
from segface_batch.job import Job
from segface_batch.model import weights
from segface_batch.output import parts, records, run as runs
from segface_batch.parse import ParseUnits

#: Logical CPUs of the tasks that mostly wait for storage; together they share the one that `ray_running` adds.
FETCH_CPUS, STAGE_CPUS, PUBLISH_CPUS = 0.5, 0.25, 0.25

#: CPU threads of an actor: one on a CPU, where actors side by side beat threads inside one (README, "Speed"); on a
#: GPU enough to decode for it.
CPU_THREADS, GPU_THREADS = 1, 4

#: Attempts that a task may lose to a dying worker; unbounded, as Ray has it, a picture that kills its worker would be
#: tried for ever.
MAX_RETRIES = 3


class Progress(Protocol):
    """Who is told how a run goes on."""

    def phase(self, what: str) -> None:
        """A new phase begins."""

    def pictures(self, done: int, total: int, errors: int) -> None:
        """`done` of the plan's `total` pictures have rows; `errors` of this run's have no mask."""


class Silence:
    """Nobody is told."""

    def phase(self, what: str) -> None: ...

    def pictures(self, done: int, total: int, errors: int) -> None: ...


@dataclass(frozen=True)
class Summary:
    """How a run ended: rows of the whole output by status and error, what the input held besides pictures, and the
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
    out = Path(os.path.abspath(job.output))
    checkpoint = catalog.find(job.checkpoint)
    progress.phase(f"getting the weights of {checkpoint.name}")
    weights_file = weights.locate(checkpoint, job.weights, job.revision)
    weights.check_kind(weights_file)
    sha256 = weights.sha256(weights_file)
    if job.weights_sha256 not in (None, sha256):
        raise ValueError(f"{weights_file} has sha256 {sha256}, not {job.weights_sha256}; get the file again")
    run = runs.read(out, job, sha256) or runs.start(out, job, sha256, _plan(job, out, progress))
    plan = planning.read(_plan_folder(out), run["plan"])
    todo = parts.unfinished(out, plan)
    parsed, seconds = 0, 0.0
    if todo:
        progress.phase("starting Ray")
        with ray_running():
            progress.phase("loading the model")
            started = time.monotonic()
            parsed = _run(job, out, plan, todo, run, sha256, progress)
            seconds = time.monotonic() - started
    manifest = parts.finish(out, plan)
    return Summary(job.output, plan.pictures, manifest["status"], manifest["errors"], plan.skipped, parsed, seconds)


def _plan_folder(out: Path) -> Path:
    return out / "_segface" / "plan"


def _plan(job: Job, out: Path, progress: Progress) -> str:
    progress.phase("listing the pictures")
    skipped: Counter[str] = Counter()
    need_landmarks = catalog.find(job.checkpoint).dataset.landmarks != ""
    pictures = sources.pictures(job.input, skipped, need_landmarks=need_landmarks)
    first = next(pictures, None)
    if first is None:
        besides = ", ".join(f"{count} {kind}" for kind, count in skipped.items()) or "nothing else"
        raise ValueError(f"no pictures in '{job.input}' ({besides}); give the folder or manifest that has them")
    return planning.write(_plan_folder(out), itertools.chain([first], pictures), skipped, job.part_rows)


def _run(
    job: Job, out: Path, plan: Plan, todo: dict[Range, list[int]], run: dict[str, Any], sha256: str, progress: Progress
) -> int:
    """Parse, stage and publish what is to do; the pictures parsed."""
    import ray

    publish = ray.remote(num_cpus=PUBLISH_CPUS, max_retries=MAX_RETRIES)(parts.publish)
    publishing = [publish.remote(out, planned, run) for planned, units in todo.items() if not units]
    waiting = {planned.index: len(units) for planned, units in todo.items()}
    ranges = {planned.index: planned for planned in todo}
    left = sum(planned.sizes[unit - planned.first_unit] for planned, units in todo.items() for unit in units)
    parsed = errors = 0
    for staged in _staged(job, out, todo, sha256):
        parsed += staged["pictures"]
        errors += staged["errors"]
        progress.pictures(plan.pictures - left + parsed, plan.pictures, errors)
        waiting[staged["range"]] -= 1
        if waiting[staged["range"]] == 0:
            publishing.append(publish.remote(out, ranges[staged["range"]], run))
            finished, publishing = ray.wait(publishing, num_returns=len(publishing), timeout=0)
            ray.get(finished)
    ray.get(publishing)
    return parsed


def _staged(job: Job, out: Path, todo: dict[Range, list[int]], sha256: str) -> Iterable[dict[str, Any]]:
    """The chain: a row (range, pictures, errors) for every unit that has been staged, as it happens."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    units = [
        {"range": planned.index, "file": planned.file, "position": unit - planned.first_unit}
        for planned, numbers in todo.items()
        for unit in numbers
    ]
    if not units:
        return ()
    num_gpus, threads, (least, most) = _actors(job, len(units))
    parser = {
        "checkpoint": job.checkpoint,
        # Workers may run in another folder, so a local file is named by its whole path; a URL each node fetches itself.
        "weights": job.weights if job.weights is None or "://" in job.weights else os.path.abspath(job.weights),
        "weights_sha256": sha256,
        "revision": job.revision,
        "device": "cuda" if num_gpus else "cpu",
        "precision": job.precision,
        "batch_size": job.batch_size,
        "threads": threads,
    }
    whole_units: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow"}
    with warnings.catch_warnings():
        # Retries have no named parameter in Ray 2.60, which deprecates the only way to set them (pyproject.toml).
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        return (
            ray.data.from_arrow(pa.Table.from_pylist(units))
            .repartition(target_num_rows_per_block=1)
            .map_batches(
                partial(fetch, plan_folder=_plan_folder(out)),
                compute=ray.data.TaskPoolStrategy(size=min(2 * most, len(units))),
                num_cpus=FETCH_CPUS,
                max_retries=MAX_RETRIES,
                **whole_units,
            )
            .map_batches(
                ParseUnits,
                fn_constructor_kwargs={"parser": parser, "max_pixels": job.max_pixels},
                compute=ray.data.ActorPoolStrategy(
                    min_size=least,
                    max_size=most,
                    initial_size=least,
                    # The next unit is decoded while the network has the last pictures of this one.
                    max_concurrent_calls_per_actor=2,
                    enable_true_multi_threading=True,
                ),
                num_cpus=threads,
                num_gpus=num_gpus,
                max_task_retries=MAX_RETRIES,
                **whole_units,
            )
            .map_batches(partial(_stage, out=out), num_cpus=STAGE_CPUS, max_retries=MAX_RETRIES, **whole_units)
            .iter_rows()
        )


def _stage(parsed: pa.Table, *, out: Path) -> pa.Table:
    """One row of parse.rows_schema -> one row (range, pictures, errors), its rows staged."""
    rows = unnest(parsed["rows"])
    range_index = parsed["range"][0].as_py()
    parts.stage(out, range_index, rows)
    errors = rows["status"].to_pylist().count(records.ERROR)
    return pa.table({"range": [range_index], "pictures": [rows.num_rows], "errors": [errors]})


def _actors(job: Job, units: int) -> tuple[float, int, tuple[int, int]]:
    """GPUs and CPU threads of an actor, and least and most actors: what the job says, or what the machine has."""
    import ray

    resources = ray.cluster_resources()
    gpus, cpus = resources.get("GPU", 0.0), int(resources["CPU"]) - 1
    num_gpus = job.num_gpus
    if num_gpus is None:
        num_gpus = 1.0 if gpus and job.device != "cpu" else 0.0
    if (job.device == "cuda" and not num_gpus) or num_gpus > gpus:
        raise ValueError(f"{num_gpus or 1:g} GPU per actor asked for, Ray has {gpus:g}; try --device cpu")
    threads = job.threads or (GPU_THREADS if num_gpus else CPU_THREADS)
    room = max(1, cpus // threads)
    most = min(room, int(gpus / num_gpus)) if num_gpus else room
    least, most = job.actors or (min(most, units), min(most, units))
    if least * threads > max(1, cpus):
        raise ValueError(
            f"{least} actors of {threads} threads asked for, Ray has {cpus} CPUs; lower --actors or --threads"
        )
    return num_gpus, threads, (least, most)


@contextmanager
def ray_running() -> Iterator[None]:
    """Ray for the time of a run: the caller's, the cluster named by RAY_ADDRESS, or one started on this machine.

    RuntimeError, in one line, for whatever went wrong in it.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Under `uv run` Ray would repeat that command in every worker.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    import ray
    import ray.data

    if ray.is_initialized():
        with _one_line_errors():
            yield
        return
    for name in ("ray", "ray.data"):
        for handler in logging.getLogger(name).handlers:
            handler.setLevel(logging.CRITICAL)
    local: dict[str, Any] = {}
    if not os.environ.get("RAY_ADDRESS"):
        # One CPU more than there are cores, for the tasks that wait for storage.
        local = {"num_cpus": len(os.sched_getaffinity(0)) + 1, "include_dashboard": False}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    with _silent_stderr():
        ray.init(logging_level=logging.ERROR, log_to_driver=False, **local)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own handler would end the process with its own exit code
    try:
        with _one_line_errors():
            yield
    finally:
        ray.shutdown()


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Ray's errors carry the traceback of the worker as text, whose last line says what happened."""
    import ray.exceptions

    try:
        yield
    except ray.exceptions.RayError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else type(error).__name__
        raise RuntimeError(
            f"a worker failed: {reason} (what is done is kept; the same command goes on from there)"
        ) from error


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Nothing on file descriptor 2: Ray's C++ part announces its log level there, whatever the level."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
