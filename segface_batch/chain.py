"""The chain of Ray Data operators from planned units to staged rows.

    fetch -> parse (decode, frame, network, statistics, PNG) -> stage
    tasks    actors                                             tasks

One row of the Ray data set is one unit from the first to the last.  Every stage tells in the column `fatal` what must
end the run; what Ray itself drops (`max_errored_blocks`) are units whose worker process died again and again.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from segface_batch import storage
from segface_batch.inputs.fetch import fetch, unnest
from segface_batch.inputs.plan import Range
from segface_batch.job import Job
from segface_batch.output import parts, records, run as runs
from segface_batch.parse import ParseUnits

if TYPE_CHECKING:
    import ray.data

#: Logical CPUs of the tasks that mostly wait for storage; together they share the one that a local Ray has on top.
FETCH_CPUS, STAGE_CPUS = 0.5, 0.25

#: CPU threads of an actor on a CPU, where actors side by side beat threads inside one (README, "Speed").
CPU_THREADS = 1

#: With a GPU: the share of its CPUs that decode and encode for it, as it waits for those first; the rest fetches and
#: stages.  More than so many threads hinder each other in one Python.  (Not measured on a GPU.)
GPU_CPUS, MOST_GPU_THREADS = 0.75, 16

#: Units that are fetched at the same time for each actor; a GPU takes hundreds of pictures a second, a GET 20-50 ms.
CPU_FETCHES, GPU_FETCHES = 2, 4

#: How often a task is repeated whose worker died; unbounded, as Ray has it, a picture that kills its worker would be
#: tried for ever.
MAX_RETRIES = 1

WHOLE_UNITS: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow"}


@dataclass(frozen=True)
class Work:
    """A unit to parse, or only those `seqs` of it, and the place in staging where its rows go."""

    planned: Range
    unit: int
    target: str
    seqs: tuple[int, ...] | None = None

    @property
    def position(self) -> int:
        return self.unit - self.planned.first_unit

    @property
    def pictures(self) -> int:
        return self.planned.sizes[self.position] if self.seqs is None else len(self.seqs)


@dataclass(frozen=True)
class Staged:
    """A piece of work whose rows are staged."""

    work: Work
    errors: int


@dataclass(frozen=True)
class Chain:
    """What every pass over units has in common."""

    job: Job
    out: str
    weights_sha256: str

    def run(
        self, works: Sequence[Work], *, alone: bool = False, may_lose: int = 0, again: bool = False
    ) -> Iterator[Staged]:
        """Each piece of work as it is staged; those whose workers died are missing, RuntimeError for more than
        `may_lose` of them.

        With `alone`, nothing else is in a worker with a unit, whose death is then its own.  What is tried `again` may
        have changed since it was planned.
        RuntimeError, in one line, for what no rerun of the same units would mend.
        """
        if not works:
            return
        by_target = {work.target: work for work in works}
        staging = partial(stage, storage_options=self.job.storage_options, s3_client=self.job.s3_client)
        with _retries_as_arguments():
            parsed = self.parsed(works, alone=alone, again=again)
            parsed.context.max_errored_blocks = may_lose
            staged = parsed.map_batches(staging, num_cpus=STAGE_CPUS, max_retries=MAX_RETRIES, **WHOLE_UNITS)
        for row in staged.iter_rows():
            if row["fatal"] is not None:
                raise RuntimeError(f"{row['fatal']} (what is done is kept; the same command goes on from there)")
            yield Staged(by_target[row["target"]], row["errors"])

    def parsed(self, works: Sequence[Work], *, alone: bool = False, again: bool = False) -> ray.data.Dataset:
        """The chain up to the parser: one row for each piece of work (range, unit, target, rows, fatal)."""
        import ray.data

        num_gpus, threads, (least, most) = actors(self.job, len(works))
        table: dict[str, Any] = {
            "range": pa.array([work.planned.index for work in works], pa.int32()),
            "file": [work.planned.file for work in works],
            "position": pa.array([work.position for work in works], pa.int32()),
            "seqs": pa.array([work.seqs for work in works], pa.list_(pa.int32())),
            "target": [work.target for work in works],
        }
        read = partial(
            _fetch,
            plan_folder=runs.plan_folder(self.out),
            storage_options=self.job.storage_options,
            s3_client=self.job.s3_client,
            allow_unreadable=self.job.allow_unreadable,
            any_length=again,
        )
        # The next unit is decoded while the network has the last pictures of this one.
        flow: dict[str, Any] = {"max_concurrent_calls_per_actor": 2, "enable_true_multi_threading": True}
        if alone:
            flow = {"max_tasks_in_flight_per_actor": 1}
        units = ray.data.from_arrow(pa.table(table))
        units.context.enable_progress_bars = False
        units.context.print_on_execution_start = False
        units.context.target_max_block_size = 1  # each row a block
        with _retries_as_arguments():
            return (
                # Not repartition(), which holds a CPU until the last unit is handed out.
                units.map_batches(_each, batch_size=None, batch_format="pyarrow", num_cpus=0)
                .map_batches(
                    read,
                    compute=ray.data.TaskPoolStrategy(size=min(fetches(num_gpus) * most, len(works))),
                    num_cpus=FETCH_CPUS,
                    max_retries=MAX_RETRIES,
                    **WHOLE_UNITS,
                )
                .map_batches(
                    self.parser(),
                    fn_constructor_kwargs=self.arguments(num_gpus, threads),
                    compute=ray.data.ActorPoolStrategy(min_size=least, max_size=most, initial_size=least, **flow),
                    num_cpus=threads,
                    num_gpus=num_gpus,
                    max_task_retries=MAX_RETRIES,
                    **WHOLE_UNITS,
                )
            )

    def parser(self) -> type[ParseUnits]:
        """The class of the actors."""
        if self.job.parser is None:
            return ParseUnits
        module, _, name = self.job.parser.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"--parser {self.job.parser}: {error}") from None

    def arguments(self, num_gpus: float, threads: int) -> dict[str, Any]:
        """What the class of the actors is made with."""
        return {
            "parser": self._parser(num_gpus, threads),
            "max_pixels": self.job.max_pixels,
            "storage_options": self.job.storage_options,
            "s3_client": self.job.s3_client,
            "detector": self._detector(),
            "max_faces": self.job.max_faces,
            "given": self.job.faces == "given",
            "fast": self.job.decode == "fast",
            "mask_space": self.job.mask_space,
        }

    def _detector(self) -> dict[str, Any] | None:
        """The detector's name and arguments, None where no faces are to be found."""
        if self.job.faces != "detect":
            return None
        return {"name": self.job.detector, "min_face": self.job.min_face, "min_score": self.job.min_score}

    def _parser(self, num_gpus: float, threads: int) -> dict[str, Any]:
        """FaceParser's arguments."""
        given = self.job.weights
        return {
            "checkpoint": self.job.checkpoint,
            # Workers may run in another folder, so a local file is named by its whole path; a URL each node fetches
            # itself.
            "weights": given if given is None or storage.is_url(given) else os.path.abspath(given),
            "weights_sha256": self.weights_sha256,
            "revision": self.job.revision,
            "device": "cuda" if num_gpus else "cpu",
            "engine": self.job.engine,
            "precision": self.job.precision,
            "compile": self.job.compile,
            "batch_size": self.job.batch_size,
            "threads": threads,
        }


@contextmanager
def _retries_as_arguments() -> Iterator[None]:
    """Retries have no named parameter in Ray 2.60, which deprecates the only way to set them (pyproject.toml)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        yield


def _each(units: pa.Table) -> Iterator[pa.Table]:
    """Every unit as a block of its own."""
    return (units.slice(position, 1) for position in range(units.num_rows))


def _fetch(unit: pa.Table, **settings: Any) -> pa.Table:
    return fetch(unit.drop_columns("target"), **settings).append_column("target", unit["target"])


def stage(parsed: pa.Table, *, storage_options: str | None, s3_client: str) -> pa.Table:
    """A unit of rows -> (target, errors, fatal), its rows staged."""
    target, fatal, errors = parsed["target"][0].as_py(), parsed["fatal"][0].as_py(), 0
    if fatal is None:
        try:
            storage.configure(storage_options, s3_client)
            rows = unnest(parsed["rows"])
            parts.stage(target, rows)
            errors = rows["status"].to_pylist().count(records.ERROR)
        except Exception as error:
            fatal = f"cannot write {target}: {error}"
    return pa.table({"target": [target], "errors": [errors], "fatal": pa.array([fatal], pa.string())})


def gpu_threads(cpus: int, gpus: float, num_gpus: float) -> int:
    """CPU threads of an actor with `num_gpus` of the machine's or cluster's GPUs."""
    return max(1, min(MOST_GPU_THREADS, int(GPU_CPUS * cpus * num_gpus / gpus)))


def fetches(num_gpus: float) -> int:
    """Units that are fetched at the same time for each actor."""
    return GPU_FETCHES if num_gpus else CPU_FETCHES


def actors(job: Job, units: int) -> tuple[float, int, tuple[int, int]]:
    """GPUs and CPU threads of an actor, and least and most actors: what the job says, or what the machine has."""
    import ray

    resources = ray.cluster_resources()
    gpus, cpus = resources.get("GPU", 0.0), int(resources["CPU"]) - 1
    num_gpus = job.num_gpus
    if num_gpus is None:
        num_gpus = 1.0 if gpus and job.device != "cpu" and job.engine != "openvino" else 0.0
    if (job.device == "cuda" and not num_gpus) or num_gpus > gpus:
        raise ValueError(f"{num_gpus or 1:g} GPU per actor asked for, Ray has {gpus:g}; try --device cpu")
    threads = job.threads or CPU_THREADS
    if num_gpus and job.threads is None:
        threads = gpu_threads(cpus, gpus, num_gpus)
    room = max(1, cpus // threads)
    most = min(room, int(gpus / num_gpus)) if num_gpus else room
    least, most = job.actors or (min(most, units), min(most, units))
    if least * threads > max(1, cpus):
        raise ValueError(
            f"{least} actors of {threads} threads asked for, Ray has {cpus} CPUs; lower --actors or --threads"
        )
    return num_gpus, threads, (least, most)
