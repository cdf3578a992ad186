"""A sample of a job's images goes through actors like those of the job, as many as share a machine, since they slow
each other down."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from segface_batch.forecast.todo import Todo
from segface_batch.forecast.trial import PLACE, Measured, Trial, worker_seconds
from segface_batch.inputs.image import SourceImage
from segface_batch.job import Job
from segface_batch.output import plan as plans
from segface_batch.output.plan import MIN_UNIT
from segface_batch.pipeline.dataset import GPU_FETCHES
from segface_batch.pipeline.resources import Resources, most_on, nodes, share
from segface_batch.progress import Progress

#: Batch sizes that are tried where the job does not name one.
CPU_BATCHES, GPU_BATCHES = (1, 4), (8, 16, 32)


@dataclass(frozen=True)
class Setup:
    """What Ray has, and what the job takes of it.

    `actors` are those of the job, `side_by_side` those that share a machine; each has `fetches` units fetched at the
    same time.  `node_memory` are bytes of the largest node.
    """

    cpus: int
    gpus: float
    node_memory: float
    resources: Resources
    actors: int
    side_by_side: int
    fetches: int


@dataclass(frozen=True)
class Sampled:
    """What the actors measured.

    `start_seconds` pass until all have their network.  `worker_seconds` is the CPU time until a worker of Ray is there.
    `units` are those of the sample: images, and whether one request fetches all.  `batches` are seconds per face by
    batch size.
    """

    setup: Setup
    start_seconds: float
    worker_seconds: float
    units: tuple[tuple[int, bool], ...]
    measured: tuple[Measured, ...]
    batch_size: int
    batches: dict[int, float]


def run_sample(job: Job, weights_sha256: str | None, todo: Todo, count: int, progress: Progress) -> Sampled:
    """Annotate at least `count` images of the job, if it has so many; Ray runs."""
    import ray

    started, setup = time.monotonic(), find_setup(job, todo.units)
    # In an environment of its own, so that Ray starts a new process for it.
    fresh = {"env_vars": {"SEGFACE_BATCH_TRIAL": "1"}}
    worker: Any = ray.remote(num_cpus=0, runtime_env=fresh)(worker_seconds).remote()
    with _trials(replace(job, output=PLACE), setup, weights_sha256) as trials:
        batch_size = ray.get([trial.batch_size.remote() for trial in trials])[0]
        start_seconds = time.monotonic() - started
        # Small units let more places of the input be tried; a batch must be full.
        size = max(MIN_UNIT, batch_size)
        chosen = todo.spread(max(len(trials), -(-count // size)))
        progress.phase(f"trying {sum(min(size, own) for own, _ in chosen)} images in {len(trials)} actors")
        measured = _annotate(trials, [_plan_file(images[:size], todo.carried) for _, images in chosen])
        batches = {}
        if job.batch_size is None and job.network is None:
            sizes = sorted({batch_size, *(GPU_BATCHES if setup.resources.num_gpus else CPU_BATCHES)})
            progress.phase(f"trying batches of {', '.join(map(str, sizes))}")
            batches = _time_batches(trials, sizes)
    units = tuple((own, is_one_request(images)) for own, images in chosen)
    return Sampled(setup, start_seconds, ray.get(worker), units, measured, batch_size, batches)


def find_setup(job: Job, units: int) -> Setup:
    """What Ray has now; ValueError, in one line with a hint, where the job asks for more."""
    resources, (_, most) = share(job, units)
    num_gpus, found = resources.num_gpus, nodes()
    return Setup(
        cpus=int(sum(node.get("CPU", 0.0) for node in found)) - 1,
        gpus=sum(node.get("GPU", 0.0) for node in found),
        node_memory=max(node.get("memory", 0.0) for node in found),
        resources=resources,
        actors=most,
        side_by_side=min(most, max(1, *(most_on(node, resources) for node in found))),
        fetches=GPU_FETCHES if num_gpus else 1,
    )


@contextmanager
def _trials(job: Job, setup: Setup, weights_sha256: str | None) -> Iterator[list[Any]]:
    """Actors, each a `Trial`; RuntimeError, in one line, where one dies."""
    import ray
    import ray.exceptions

    actor: Any = ray.remote(num_cpus=setup.resources.threads, num_gpus=setup.resources.num_gpus)(Trial)
    trials = [actor.remote(job, setup.resources, weights_sha256, setup.fetches) for _ in range(setup.side_by_side)]
    try:
        yield trials
    except ray.exceptions.RayActorError as error:
        text = str(error).strip().splitlines()
        # What an actor's __init__ raises comes with its traceback.
        reason = text[-1] if "creation task" in text[0] else f"{text[0]}: an image of the sample, or lack of memory"
        raise RuntimeError(f"a trial's process ended: {reason}") from error
    finally:
        for trial in trials:
            ray.kill(trial)


def _annotate(trials: Sequence[Any], units: Sequence[bytes]) -> tuple[Measured, ...]:
    """What each trial measured on its share of the units; RuntimeError for what would end a job."""
    import ray

    own = shares(units, len(trials))
    for warm_up in (True, False):
        tasks = [trial.run.remote(some[:1] if warm_up else some) for trial, some in zip(trials, own, strict=True)]
        measured: list[Measured] = ray.get(tasks)
        for one in measured:
            if one.fatal is not None:
                raise RuntimeError(one.fatal)
    return tuple(measured)


def shares(units: Sequence[bytes], count: int) -> list[Sequence[bytes]]:
    """The units of each of `count` actors, every unit once; those of an actor are spread over all."""
    return [units[number::count] for number in range(count)]


def _time_batches(trials: Sequence[Any], sizes: Sequence[int]) -> dict[int, float]:
    import ray

    spent = ray.get([trial.network_seconds.remote(sizes) for trial in trials])
    return {size: statistics.mean(each[size] for each in spent) for size in sizes}


def _plan_file(images: Sequence[SourceImage], carried: pa.Schema) -> bytes:
    """The file of a plan with one unit."""
    return plans.to_parquet(plans.table(images, 0, [len(images)], carried))


def is_one_request(images: Sequence[SourceImage]) -> bool:
    """True for units that lie in one tar or Parquet file."""
    return any(image.offset is not None or image.cell is not None for image in images)
