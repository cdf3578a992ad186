"""From a sample to the whole job: its rate, and what it takes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from segface_batch.forecast.prices import Prices
from segface_batch.forecast.proposal import Proposal, propose
from segface_batch.forecast.sample import Sampled
from segface_batch.forecast.stages import Stage, bottleneck, pace
from segface_batch.forecast.todo import Todo
from segface_batch.forecast.trial import Measured
from segface_batch.job import Job
from segface_batch.output import parts, plan as plans, schema

#: What Ray takes in a job and not in a trial: CPUs all the time (0.17 measured on 2 cores, in a dozen processes that do
#: little), and CPU seconds per unit.
RAY_CPUS, UNIT_SECONDS = 0.17, 0.02

#: Workers that a run starts beside its actors and those that fetch for a GPU: three of Ray Data's own, and one that
#: hands out the units, and publishes.
OTHER_WORKERS = 4

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
    """`rate` are images per second once running, `rate_error` its relative error from sampling (95 %).  `bottleneck` is
    the busiest stage.  `listed_all` is False where listing was cut: `rest` is a lower bound then."""

    listed_all: bool
    planned: int
    done: int
    machine: dict[str, float]
    tried: dict[str, float]
    stages: dict[str, Stage]
    bottleneck: str
    rate: float
    rate_error: float | None
    start_seconds: float
    proposal: Proposal
    advice: tuple[str, ...]
    rest: Use
    million: Use

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Costs:
    """What images, units and parts take."""

    cpus: int
    gpus: float
    bytes_per_image: float
    bytes_per_part: float
    gets_per_image: float
    prices: Prices | None

    def use(self, images: int, wall: float, units: float, n_parts: float, read: float) -> Use:
        """What so many of them take in so many seconds, with so many bytes read."""
        values = {
            "wall_seconds": wall,
            "vcpu_seconds": wall * self.cpus,
            "gpu_seconds": wall * self.gpus,
            "read_bytes": read,
            "written_bytes": images * self.bytes_per_image + n_parts * self.bytes_per_part,
            # A unit is put into staging and read from there; a part is two files and a record.
            "get_requests": images * self.gets_per_image + units,
            "put_requests": units + (len(schema.TABLES) + 1) * n_parts,
        }
        return Use(images, **values, price=None if self.prices is None else self.prices.of(values))


def estimate(job: Job, todo: Todo, sampled: Sampled, seconds_before: float, prices: Prices | None) -> Forecast:
    """The forecast; `seconds_before` pass before actors can start."""
    setup, measured = sampled.setup, sampled.measured
    stages = pace(sampled, detects=job.faces == "detect")
    rate = _rate(todo, sampled)
    start = seconds_before + sampled.start_seconds + _other_workers_seconds(sampled)
    memory = max(one.memory for one in measured)
    proposal, advice = propose(sampled, stages, memory)
    rest, million = _uses(job, todo, sampled, rate, start, prices)
    return Forecast(
        listed_all=todo.listed_all,
        planned=todo.planned,
        done=todo.planned - todo.images,
        machine={"cpus": setup.cpus, "gpus": setup.gpus, "actor_memory_bytes": memory},
        tried=_tried(sampled),
        stages=stages,
        bottleneck=bottleneck(stages),
        rate=rate,
        rate_error=_rate_error(measured, stages),
        start_seconds=start,
        proposal=proposal,
        advice=advice,
        rest=rest,
        million=million,
    )


def _tried(sampled: Sampled) -> dict[str, float]:
    measured = sampled.measured
    images = _images(measured)
    return {
        "images": images,
        "faces_per_image": sum(sum(one.faces) for one in measured) / images,
        "actors": sampled.setup.side_by_side,
        "seconds": statistics.mean(one.seconds for one in measured),
        "cpu_seconds_per_image": sum(one.cpu_seconds for one in measured) / images,
    }


def _images(measured: Sequence[Measured]) -> int:
    return sum(sum(one.images) for one in measured)


def _rate(todo: Todo, sampled: Sampled) -> float:
    """Images per second of all actors, after what Ray takes."""
    setup, cpus = sampled.setup, max(1, sampled.setup.cpus)
    trial_rate = sum(sum(one.images) / one.seconds for one in sampled.measured)
    actors_seconds = setup.side_by_side / ((1 - RAY_CPUS / cpus) * trial_rate * setup.actors)
    return 1 / (actors_seconds + UNIT_SECONDS * todo.units / todo.images / cpus)


def _rate_error(measured: Sequence[Measured], stages: Mapping[str, Stage]) -> float | None:
    """How far the sample's mean cost may be from the input's, relative, 95 %: by the units' faces and bytes."""
    units = [unit for one in measured for unit in zip(one.images, one.faces, one.n_bytes, strict=True)]
    if len(units) < 2:
        return None
    images, faces, n_bytes = map(sum, zip(*units, strict=True))
    ms = {name: stage.ms_per_image for name, stage in stages.items()}
    per_face = (ms["network"] + ms["encode"]) * images / max(faces, 1)
    per_byte = (ms["decode"] + ms["fetch"]) * images / max(n_bytes, 1)
    costs = [(per_face * own + per_byte * size) / count for count, own, size in units]
    return 1.96 * statistics.stdev(costs) / math.sqrt(len(costs)) / max(statistics.mean(costs), 1e-9)


def _other_workers_seconds(sampled: Sampled) -> float:
    """The trial had its actors only; a run's other workers start beside them."""
    setup = sampled.setup
    workers = OTHER_WORKERS + (setup.fetches * setup.actors if setup.resources.num_gpus else 0)
    return workers * sampled.worker_seconds / max(1, setup.cpus)


def _uses(
    job: Job, todo: Todo, sampled: Sampled, rate: float, start_seconds: float, prices: Prices | None
) -> tuple[Use, Use]:
    """What the images to do take, and what a million images like them would, without start-up."""
    setup, measured = sampled.setup, sampled.measured
    per_image, per_part = _written_bytes(job, measured)
    gets = statistics.mean(1 / size if at_once else 1.0 for size, at_once in sampled.units)
    costs = _Costs(setup.cpus, setup.actors * setup.resources.num_gpus, per_image, per_part, gets, prices)
    # The last round of units leaves actors idle.
    rounds = math.ceil(todo.units / setup.actors) / (todo.units / setup.actors)
    sample_bytes = sum(sum(one.n_bytes) for one in measured) / _images(measured)
    read = float(todo.n_bytes) if todo.sizes_known else todo.images * sample_bytes
    rest = costs.use(todo.images, start_seconds + rounds * todo.images / rate, todo.units, todo.parts, read)
    units = MILLION / max(todo.images / todo.units, plans.MAX_UNIT)
    million = costs.use(MILLION, MILLION / rate, units, MILLION / job.part_rows, MILLION * read / todo.images)
    return rest, million


def _written_bytes(job: Job, measured: Sequence[Measured]) -> tuple[float, float]:
    """Bytes of all Parquet files per image, and per part, from a part of all the sample's rows and one of half."""
    rows = pa.concat_tables([one.rows for one in measured if one.rows is not None])
    described = schema.describe(job.model.dataset)
    half = rows.num_rows // 2
    if not half:
        return float(sum(map(len, parts.files(rows, described).values()))), 0.0
    whole, less = (sum(map(len, parts.files(table, described).values())) for table in (rows, rows.slice(0, half)))
    per_row = max(0.0, (whole - less) / (rows.num_rows - half))
    return per_row * rows.num_rows / _images(measured), max(0.0, whole - per_row * rows.num_rows)
