"""The chain of Ray Data operators from planned units to staged rows.

    fetch, parse (decode, frame, network, statistics, PNG), stage
    actors; where they have GPUs, tasks on all CPUs fetch

One row of the Ray data set is one unit from the first to the last.  The column `fatal` tells what must end the run;
what Ray itself drops (`max_errored_blocks`) are units whose worker process died again and again.
"""

from __future__ import annotations

import gc
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
from segface_batch.actor import UnitActor, fetched
from segface_batch.inputs.plan import Range
from segface_batch.job import Job
from segface_batch.output import run as runs
from segface_batch.parse import ParseUnits

if TYPE_CHECKING:
    import ray.data

#: Logical CPUs of the tasks that mostly wait for storage.  Where a node has died, Ray starts its actors again on all
#: CPUs that others have left; each actor leaves a crumb of its own, so that these tasks always find one.
FETCH_CPUS, CRUMB = 0.0002, 0.001

#: CPU threads of an actor on a CPU, where actors side by side beat threads inside one (README, "Speed").
CPU_THREADS = 1

#: With a GPU: the share of its CPUs that decode and encode for it, as it waits for those first; the rest fetches and
#: stages.  More than so many threads hinder each other in one Python.  (Not measured on a GPU.)
GPU_CPUS, MOST_GPU_THREADS = 0.75, 16

#: Where no node with a GPU is there yet.
GPU_THREADS = 4

#: Units in an actor at the same time: one has the network, while the next is fetched and decoded, or the last staged.
#: A GPU is done with a unit in less time than a PUT may take.  (Not measured on a GPU.)
CALLS, GPU_CALLS = 2, 3

#: Units that tasks fetch at the same time for an actor with a GPU, which takes hundreds of pictures/s, while a GET
#: takes 20-50 ms.  (Not measured on a GPU.)
GPU_FETCHES = 4

#: How often a task is repeated whose worker died; unbounded, as Ray has it, a picture that kills its worker would be
#: tried for ever.
MAX_RETRIES = 1

#: For clusters that grow on demand.
_GROWING = ", or say --actors MIN:MAX with RAY_ADDRESS where nodes come when they are needed"

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
    """A piece of work whose rows are staged, and the seconds of each stage."""

    work: Work
    errors: int
    seconds: dict[str, float]


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
        try:
            yield from self._run(works, alone=alone, may_lose=may_lose, again=again)
        finally:
            # Ray Data keeps an actor until nobody refers to it, and leaves cycles that do.  One that died when its pass
            # was over is started again, and would keep the CPUs that the next pass, or publishing, waits for.
            gc.collect()

    def _run(self, works: Sequence[Work], *, alone: bool, may_lose: int, again: bool) -> Iterator[Staged]:
        by_target = {work.target: work for work in works}
        staged = self.units(works, alone=alone, again=again)
        staged.context.max_errored_blocks = may_lose
        for row in staged.iter_rows():
            if row["fatal"] is not None:
                raise RuntimeError(f"{row['fatal']} (what is done is kept; the same command goes on from there)")
            seconds = {stage: spent for stage, spent in row["seconds"].items() if spent is not None}
            yield Staged(by_target[row["target"]], row["errors"], seconds)

    def units(
        self, works: Sequence[Work], *, actor: type = UnitActor, alone: bool = False, again: bool = False
    ) -> ray.data.Dataset:
        """The chain: what the actors make of each piece of work, a row each."""
        import ray.data

        num_gpus, threads, (least, most) = actors(self.job, len(works))
        table: dict[str, Any] = {
            "range": pa.array([work.planned.index for work in works], pa.int32()),
            "file": [work.planned.file for work in works],
            "position": pa.array([work.position for work in works], pa.int32()),
            "seqs": pa.array([work.seqs for work in works], pa.list_(pa.int32())),
            "target": [work.target for work in works],
        }
        staging = {"storage_options": self.job.storage_options, "s3_client": self.job.s3_client}
        fetching = staging | {
            "plan_folder": runs.plan_folder(self.out),
            "allow_unreadable": self.job.allow_unreadable,
            "any_length": again,
        }
        flow: dict[str, Any] = {
            "max_concurrent_calls_per_actor": GPU_CALLS if num_gpus else CALLS,
            "enable_true_multi_threading": True,
        }
        if alone:
            flow = {"max_tasks_in_flight_per_actor": 1}
        units = ray.data.from_arrow(pa.table(table))
        units.context.enable_progress_bars = False
        units.context.print_on_execution_start = False
        units.context.target_max_block_size = 1  # each row a block
        with _retries_as_arguments():
            # Not repartition(), which holds a CPU until the last unit is handed out.
            units = units.map_batches(_each, batch_size=None, batch_format="pyarrow", num_cpus=0)
            if num_gpus:
                units = units.map_batches(
                    partial(fetched, **fetching),
                    compute=ray.data.TaskPoolStrategy(size=min(GPU_FETCHES * most, len(works))),
                    num_cpus=FETCH_CPUS,
                    max_retries=MAX_RETRIES,
                    **WHOLE_UNITS,
                )
            return units.map_batches(
                actor,
                fn_constructor_kwargs={
                    "parser": self.parser(),
                    "arguments": self.arguments(num_gpus, threads),
                    "staging": staging,
                    "fetching": None if num_gpus else fetching,
                },
                compute=ray.data.ActorPoolStrategy(min_size=least, max_size=most, initial_size=least, **flow),
                num_cpus=threads - CRUMB,
                num_gpus=num_gpus,
                max_task_retries=MAX_RETRIES,
                **WHOLE_UNITS,
            )

    def parser(self) -> type[ParseUnits]:
        """What parses in the actors."""
        if self.job.parser is None:
            return ParseUnits
        module, _, name = self.job.parser.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"--parser {self.job.parser}: {error}") from None

    def arguments(self, num_gpus: float, threads: int) -> dict[str, Any]:
        """What the parser is made with."""
        return {
            "parser": self._parser(num_gpus, threads),
            "max_pixels": self.job.max_pixels,
            "storage_options": self.job.storage_options,
            "s3_client": self.job.s3_client,
            "detector": self._detector(),
            "max_faces": self.job.max_faces,
            "given": self.job.faces == "given",
            "decode": self.job.decode,
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


def gpu_threads(cpus: float, gpus: float, num_gpus: float) -> int:
    """CPU threads of an actor with `num_gpus` of a machine's GPUs."""
    return max(1, min(MOST_GPU_THREADS, int(GPU_CPUS * cpus * num_gpus / gpus)))


def actors(job: Job, units: int) -> tuple[float, int, tuple[int, int]]:
    """GPUs and CPU threads of an actor, and least and most actors: what the job says, or what the machine has.

    Actors for a GPU are where GPUs are.  Of CPUs alone every node keeps one for the tasks that wait for storage.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = (sum(node.get(kind, 0.0) for node in nodes) for kind in ("CPU", "GPU"))
    num_gpus = job.num_gpus
    if num_gpus is None:
        num_gpus = 1.0 if job.device == "cuda" or (gpus and job.device == "auto" and job.engine != "openvino") else 0.0
    threads = job.threads or CPU_THREADS
    if num_gpus and job.threads is None:
        found = (gpu_threads(node.get("CPU", 1) - 1, node["GPU"], num_gpus) for node in nodes if node.get("GPU"))
        threads = min(found, default=GPU_THREADS)
    if job.actors is not None and os.environ.get("RAY_ADDRESS"):
        return num_gpus, threads, job.actors  # a cluster may grow when they wait
    if num_gpus > gpus:
        raise ValueError(f"{num_gpus:g} GPU per actor asked for, Ray has {gpus:g}; try --device cpu{_GROWING}")
    if num_gpus:
        each = [min(node.get("CPU", 0) // threads, node.get("GPU", 0) // num_gpus) for node in nodes]
    else:
        each = [max(0, node.get("CPU", 0) - 1) // threads for node in nodes]
    room = max(1, int(cpus - 1) // threads)
    most = min(room, int(sum(each)) or (0 if num_gpus else room))
    least, most = job.actors or (min(most, units), min(most, units))
    if least == 0 or least * threads > max(1, cpus - 1):
        raise ValueError(
            f"{least or 1} actors of {threads} threads asked for, Ray has {cpus - 1:g} CPUs for them; lower --actors "
            f"or --threads{_GROWING}"
        )
    return num_gpus, threads, (least, most)
