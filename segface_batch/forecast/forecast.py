"""What a job would take before it runs: time, bytes, money, and which step sets the pace.

Images of a sample, spread over the input, go through actors like those of the job, as many as share a machine, since
they slow each other down (trial.py).  Nothing is written to the output.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa

from segface_batch import storage
from segface_batch.forecast.prices import Prices
from segface_batch.forecast.trial import PLACE, Measured, Trial, worker_seconds
from segface_batch.inputs.image import SourceImage
from segface_batch.job import Job
from segface_batch.output import parts, plan as planning, run as runs, schema
from segface_batch.output.plan import MIN_UNIT
from segface_batch.pipeline import prepare
from segface_batch.pipeline.cluster import ray_running
from segface_batch.pipeline.dataset import GPU_FETCHES
from segface_batch.pipeline.metrics import STAGES
from segface_batch.pipeline.planning import list_images
from segface_batch.pipeline.resources import Resources, nodes, share
from segface_batch.progress import Progress, Silence

#: A longer listing is cut; what is said about the whole input is a lower bound then.
LISTING_SECONDS = 60.0

#: Units kept while listing, of which the trial takes what it needs.
KEPT = 256

#: What Ray takes in a job and not in a trial: CPUs all the time (0.17 measured on 2 cores, in a dozen processes that do
#: little), and CPU seconds per unit.
RAY_CPUS, UNIT_SECONDS = 0.17, 0.02

#: Workers that a run starts beside its actors and those that fetch for a GPU: three of Ray Data's own, and one that
#: hands out the units, and publishes.
OTHER_WORKERS = 4

#: Batch sizes that are tried where the job does not name one.
CPU_BATCHES, GPU_BATCHES = (1, 4), (8, 16, 32)

#: A larger batch must gain more than this.
GAIN = 1.03

MILLION = 1_000_000


@dataclass(frozen=True)
class Use:
    """What so many images take: the machine's vCPUs and the actors' GPUs for all of the wall time."""

    images: int
    wall_seconds: float
    vcpu_seconds: float
    gpu_seconds: float
    read_bytes: float
    written_bytes: float
    get_requests: float
    put_requests: float
    price: float | None = None


@dataclass(frozen=True)
class Forecast:
    """`steps`: of each, milliseconds of work per image, and the share of the time in which it is busy, 0 to 1; the
    busiest is the `bottleneck`.  `rate` are images per second once running, `rate_error` the relative error of 95 %
    that comes from sampling.  `listed_all` is False where listing was cut: more follows than `rest` tells of."""

    listed_all: bool
    planned: int
    done: int
    machine: dict[str, float]
    tried: dict[str, float]
    steps: dict[str, dict[str, float]]
    bottleneck: str
    rate: float
    rate_error: float
    start_seconds: float
    proposal: dict[str, Any]
    advice: tuple[str, ...]
    rest: Use
    million: Use

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _Work:
    """What there is to do: images and bytes (0: not known) of all units, and some units, evenly spread."""

    listed_all: bool = True
    planned: int = 0
    images: int = 0
    units: int = 0
    parts: int = 0
    n_bytes: int = 0
    sizes_known: bool = True
    carried: pa.Schema = field(default_factory=lambda: pa.schema([]))
    step: int = 1
    kept: list[tuple[int, Callable[[], Sequence[SourceImage]]]] = field(default_factory=list)

    def add(self, size: int, images: Callable[[], Sequence[SourceImage]]) -> None:
        if self.units % self.step == 0:
            self.kept.append((size, images))
            if len(self.kept) == 2 * KEPT:
                self.kept, self.step = self.kept[::2], 2 * self.step
        self.units += 1
        self.images += size

    def spread(self, count: int) -> list[tuple[int, Sequence[SourceImage]]]:
        """At most `count` of the units kept: their sizes and images."""
        count = min(count, len(self.kept))
        some = [self.kept[number * len(self.kept) // count] for number in range(count)]
        return [(size, images()) for size, images in some]


def forecast(
    job: Job, sample: int = 64, prices: Prices | None = None, progress: Progress | None = None
) -> Forecast | None:
    """Try `sample` images of the job or a few more; None where nothing is left to parse.

    ValueError and OSError, in one line, for what the user can fix; RuntimeError for what would end the job.
    """
    progress = progress or Silence()
    storage.configure(job.storage_options, job.s3_client)
    job = prepare.located(job)
    sha256 = prepare.weights_sha256(job, progress)
    started = time.monotonic()
    run = runs.read(job.output)
    job = prepare.with_engine(job, run, progress)
    work = _planned(job, run, sha256) if run else _listed(job, progress)
    listing_seconds = time.monotonic() - started
    if not work.units:
        return None
    started = time.monotonic()
    progress.phase("starting Ray")
    with ray_running():
        progress.phase("loading the model")
        tried = _try(replace(job, output=PLACE), sha256, work, sample, progress, started)
    return _follows(job, work, tried, listing_seconds, prices)


def _listed(job: Job, progress: Progress) -> _Work:
    work, until = _Work(), time.monotonic() + LISTING_SECONDS
    work.carried, images = list_images(job, Counter(), progress)
    for members, sizes in planning.in_units(images, job.part_rows):
        work.parts += 1
        work.n_bytes += sum(image.n_bytes for image in members)
        work.sizes_known &= all(image.n_bytes for image in members)
        for start, size in zip(itertools.accumulate(sizes, initial=0), sizes, strict=False):
            work.add(size, lambda unit=members[start : start + size]: unit)
        if time.monotonic() > until:
            work.listed_all = next(images, None) is None
            break
    work.planned = work.images
    return work


def _planned(job: Job, run: dict[str, Any], sha256: str | None) -> _Work:
    """What an earlier run has left to do."""
    out, folder = job.output, runs.plan_folder(job.output)
    runs.check(out, run, job, sha256)
    plan = runs.plan(out, run)
    work = _Work(sizes_known=False, carried=plan.carried)
    for planned, units in parts.unfinished(out, plan).items():
        work.parts += 1
        for unit in units:
            at = unit - planned.first_unit
            work.add(
                planned.sizes[at], lambda planned=planned, at=at: planning.read_unit(folder, planned.file, at).images
            )
    work.planned = plan.images
    return work


@dataclass(frozen=True)
class _Tried:
    cpus: int
    gpus: float
    resources: Resources
    actors: int
    side_by_side: int
    fetches: int  # of each actor, at the same time
    batch_size: int
    batches: dict[int, float]
    start_seconds: float
    worker_seconds: float  # CPU time until a worker is there
    sizes: tuple[tuple[int, bool], ...]  # of the units of the sample: images, and whether one request brings all
    measured: tuple[Measured, ...]
    node_memory: float


def _try(job: Job, weights_sha256: str | None, work: _Work, sample: int, progress: Progress, started: float) -> _Tried:
    import ray
    import ray.exceptions

    resources, (_, most) = share(job, work.units)
    num_gpus, threads, found = resources.num_gpus, resources.threads, nodes()
    fits = [min(n.get("CPU", 0) // threads, n.get("GPU", 0) // num_gpus if num_gpus else most) for n in found]
    count = min(most, max(1, int(max(fits))))
    fetched = GPU_FETCHES if num_gpus else 1
    # An environment of its own, so that it is no worker that others have kept busy.
    fresh = {"env_vars": {"SEGFACE_BATCH_TRIAL": "1"}}
    worker: Any = ray.remote(num_cpus=0, runtime_env=fresh)(worker_seconds).remote()
    actor: Any = ray.remote(num_cpus=threads, num_gpus=num_gpus)(Trial)
    trials = [actor.remote(job, resources, weights_sha256, fetched) for _ in range(count)]
    try:
        batch_size = ray.get([trial.batch_size.remote() for trial in trials])[0]
        start_seconds = time.monotonic() - started
        # Small units let more places of the input be tried; a batch must be full.
        size = max(MIN_UNIT, batch_size)
        chosen = work.spread(max(count, -(-sample // size)))
        units = [_plan_file(images[:size], work.carried) for _, images in chosen]
        progress.phase(f"trying {sum(min(size, own) for own, _ in chosen)} images in {count} actors")
        shares = [units[number::count] for number in range(count)]
        ray.get([trial.run.remote(share[:1]) for trial, share in zip(trials, shares, strict=True)])  # warms up
        measured = ray.get([trial.run.remote(share) for trial, share in zip(trials, shares, strict=True)])
        for one in measured:
            if one.fatal is not None:
                raise RuntimeError(one.fatal)
        batches: dict[int, float] = {}
        if job.batch_size is None and job.network is None:
            sizes = sorted({batch_size, *(GPU_BATCHES if num_gpus else CPU_BATCHES)})
            progress.phase(f"trying batches of {', '.join(map(str, sizes))}")
            spent = ray.get([trial.network_seconds.remote(sizes) for trial in trials])
            batches = {size: statistics.mean(each[size] for each in spent) for size in sizes}
    except ray.exceptions.RayActorError as error:
        told = str(error).strip().splitlines()
        # What an actor's __init__ raises comes with its traceback.
        reason = told[-1] if "creation task" in told[0] else f"{told[0]}: an image of the sample, or want of memory"
        raise RuntimeError(f"a trial's process ended: {reason}") from error
    finally:
        for trial in trials:
            ray.kill(trial)
    total = ray.cluster_resources()
    return _Tried(
        cpus=int(total["CPU"]) - 1,
        gpus=total.get("GPU", 0.0),
        resources=resources,
        actors=most,
        side_by_side=count,
        fetches=fetched,
        batch_size=batch_size,
        batches=batches,
        start_seconds=start_seconds,
        worker_seconds=ray.get(worker),
        sizes=tuple((own, _is_one_request(images)) for own, images in chosen),
        measured=tuple(measured),
        node_memory=max(node.get("memory", 0.0) for node in found),
    )


def _plan_file(images: Sequence[SourceImage], carried: pa.Schema) -> bytes:
    """The file of a plan with one unit."""
    return planning.to_parquet(planning.table(images, 0, [len(images)], carried))


def _is_one_request(images: Sequence[SourceImage]) -> bool:
    """True for units that lie in one tar or Parquet file."""
    return any(image.offset is not None or image.cell is not None for image in images)


def _follows(job: Job, work: _Work, tried: _Tried, listing_seconds: float, prices: Prices | None) -> Forecast:
    measured = tried.measured
    images = sum(sum(one.images) for one in measured)
    seconds = statistics.mean(one.seconds for one in measured)
    servers = {"fetch": tried.fetches, "decode": tried.resources.threads, "encode": tried.resources.threads}
    steps = {}
    for step in STAGES:
        worked = sum(one.work[step] for one in measured)
        busy = worked / (seconds * len(measured) * servers.get(step, 1))
        steps[step] = {"ms_per_image": 1000 * worked / images, "busy": busy}
    if job.faces != "detect":
        del steps["detect"]
    bottleneck = max((step for step in steps if step != "detect"), key=lambda step: steps[step]["busy"])
    trial_rate = sum(sum(one.images) / one.seconds for one in measured)
    ray_seconds = UNIT_SECONDS * work.units / work.images / max(1, tried.cpus)
    left = 1 - RAY_CPUS / max(1, tried.cpus)
    rate = 1 / (tried.side_by_side / (left * trial_rate * tried.actors) + ray_seconds)
    # The last round of units leaves actors idle.
    rounds = math.ceil(work.units / tried.actors) / (work.units / tried.actors)
    memory = max(one.memory for one in measured)
    proposal, advice = _proposal(tried, steps, memory)
    written, per_part = _bytes_of_rows(job, tried)
    sampled = sum(sum(one.n_bytes) for one in measured) / images
    gets = statistics.mean(1 / size if at_once else 1.0 for size, at_once in tried.sizes)

    def use(count: int, wall: float, units: float, n_parts: float, read: float) -> Use:
        values = {
            "wall_seconds": wall,
            "vcpu_seconds": wall * tried.cpus,
            "gpu_seconds": wall * tried.actors * tried.resources.num_gpus,
            "read_bytes": read,
            "written_bytes": count * written + n_parts * per_part,
            # A unit is put into staging and got from there; a part is two files and a record.
            "get_requests": count * gets + units,
            "put_requests": units + 3 * n_parts,
        }
        return Use(count, **values, price=None if prices is None else prices.of(values))

    # The trial had its actors only; a run's other workers start beside them.
    workers = OTHER_WORKERS + (tried.fetches * tried.actors if tried.resources.num_gpus else 0)
    start = listing_seconds + tried.start_seconds + workers * tried.worker_seconds / max(1, tried.cpus)
    read = float(work.n_bytes) if work.sizes_known else work.images * sampled
    per_unit = work.images / work.units
    return Forecast(
        listed_all=work.listed_all,
        planned=work.planned,
        done=work.planned - work.images,
        machine={"cpus": tried.cpus, "gpus": tried.gpus, "actor_memory_bytes": memory},
        tried={
            "images": images,
            "faces_per_image": sum(sum(one.faces) for one in measured) / images,
            "actors": tried.side_by_side,
            "seconds": seconds,
            "cpu_seconds_per_image": sum(one.cpu_seconds for one in measured) / images,
        },
        steps=steps,
        bottleneck=bottleneck,
        rate=rate,
        rate_error=_error(measured, steps),
        start_seconds=start,
        proposal=proposal,
        advice=advice,
        rest=use(work.images, start + rounds * work.images / rate, work.units, work.parts, read),
        million=use(
            MILLION,
            MILLION / rate,
            MILLION / max(per_unit, planning.MAX_UNIT),
            MILLION / job.part_rows,
            MILLION * read / work.images,
        ),
    )


def _proposal(tried: _Tried, steps: dict[str, dict[str, float]], memory: int) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Settings for this machine, and why they differ from those that were tried."""
    advice = []
    most, threads, batch = tried.actors, tried.resources.threads, tried.batch_size
    if tried.node_memory and tried.side_by_side * memory > tried.node_memory:
        most = max(1, int(most * tried.node_memory / (tried.side_by_side * memory)))
        advice.append(f"--actors {most}: so many fit into memory, {memory / 2**30:.1f} GiB each")
    if tried.resources.num_gpus:
        network = steps["network"]["ms_per_image"]
        host = max(steps["decode"]["ms_per_image"], steps["encode"]["ms_per_image"])
        needed, room = math.ceil(host / network), max(1, tried.cpus // most)
        if needed > threads:
            threads = min(needed, room)
            advice.append(f"--threads {threads}: the GPU waits for {needed} decoding threads, {room} CPUs are there")
    if tried.batches:
        best = min(tried.batches.values())
        batch = next(size for size, seconds in sorted(tried.batches.items()) if seconds <= best * GAIN)
        if batch != tried.batch_size:
            gain = tried.batches[tried.batch_size] / tried.batches[batch]
            advice.append(f"--batch-size {batch}: the network takes {1 / gain:.2f} of the time per face")
    return {
        "actors": [most, most],
        "threads": threads,
        "batch_size": batch,
        "num_gpus": tried.resources.num_gpus,
    }, tuple(advice)


def _error(measured: Sequence[Measured], steps: dict[str, dict[str, float]]) -> float:
    """How far the mean cost of the sample's units may lie off the input's, relative, 95 %: by faces and bytes."""
    units = [unit for one in measured for unit in zip(one.images, one.faces, one.n_bytes, strict=True)]
    if len(units) < 2:
        return math.nan
    images, faces, n_bytes = map(sum, zip(*units, strict=True))
    per_face = (steps["network"]["ms_per_image"] + steps["encode"]["ms_per_image"]) * images / max(faces, 1)
    per_byte = (steps["decode"]["ms_per_image"] + steps["fetch"]["ms_per_image"]) * images / max(n_bytes, 1)
    costs = [(per_face * own + per_byte * size) / count for count, own, size in units]
    return 1.96 * statistics.stdev(costs) / math.sqrt(len(costs)) / max(statistics.mean(costs), 1e-9)


def _bytes_of_rows(job: Job, tried: _Tried) -> tuple[float, float]:
    """Bytes of both Parquet files per image, and per part, from a part of all the sample's rows and one of half."""
    rows = pa.concat_tables([one.rows for one in tried.measured if one.rows is not None])
    described = schema.describe(job.model.dataset)
    images = sum(sum(one.images) for one in tried.measured)
    half = rows.num_rows // 2
    if not half:
        return float(sum(map(len, parts.files(rows, described)))), 0.0
    whole, less = (sum(map(len, parts.files(table, described))) for table in (rows, rows.slice(0, half)))
    per_row = max(0.0, (whole - less) / (rows.num_rows - half))
    return per_row * rows.num_rows / images, max(0.0, whole - per_row * rows.num_rows)
