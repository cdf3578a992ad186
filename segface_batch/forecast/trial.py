"""A trial: a worker annotates some units of a job, and its clock measures them; all is written to memory only."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import resource
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from segface_batch import storage
from segface_batch.errors import FatalError
from segface_batch.job import Job
from segface_batch.model.segface_network import SegFaceNetwork
from segface_batch.output import plan, run as runs, schema
from segface_batch.output.face import FetchedImage
from segface_batch.pipeline.dataset import CALLS
from segface_batch.pipeline.metrics import STAGES, Clock, Span
from segface_batch.pipeline.resources import Resources
from segface_batch.pipeline.worker import Worker

#: Where units are planned and staged: in the memory of the process.
PLACE = "memory://segface-trial"

#: Batches of each size that are timed.
BATCHES = 2

#: Likely places of eyes, nose tip and mouth corners, in sides of the crop.
FIVE = ((0.38, 0.44), (0.62, 0.44), (0.5, 0.56), (0.43, 0.7), (0.57, 0.7))


@dataclass(frozen=True)
class Measured:
    """What one worker did: `seconds` from the first unit to the last, and CPU seconds of its process.

    `work` are seconds by stage.  For decode (which includes detect), detect, encode and stage they are CPU seconds,
    since their threads wait for cores; for the network the time in which it had crops; for fetch the time that each
    unit waited for its bytes, summed up.  `images`, `faces` and `n_bytes` are those of each unit, `rows` all staged
    rows, `memory` the most bytes of the process; `fatal` is what would end a job.
    """

    seconds: float
    cpu_seconds: float
    work: dict[str, float]
    images: tuple[int, ...]
    faces: tuple[int, ...]
    n_bytes: tuple[int, ...]
    rows: pa.Table | None
    memory: int
    fatal: str | None = None


def worker_seconds() -> float:
    """CPU seconds until a process has imported Ray Data, as every worker of a job does."""
    importlib.import_module("ray.data")
    return time.process_time()


class Trial:
    """A worker of a job whose output is PLACE; `fetches` units are fetched for it at the same time."""

    def __init__(self, job: Job, resources: Resources, weights_sha256: str | None, fetches: int) -> None:
        self.worker = Worker(job, resources, weights_sha256)
        self.fetches = fetches
        self.numbers = itertools.count()

    def batch_size(self) -> int:
        """Crops in the network at once; returns when the network is loaded."""
        return self.worker.network.batch_size

    def run(self, units: Sequence[bytes]) -> Measured:
        """Annotate units, each given as the content of a plan's file, from fetch to stage."""
        clock = Clock()
        cpu, started = time.process_time(), time.perf_counter()
        try:
            with ThreadPoolExecutor(self.fetches) as fetchers, ThreadPoolExecutor(CALLS) as callers:
                fetched = [fetchers.submit(self._fetch, unit, clock) for unit in units]
                done = list(callers.map(lambda unit: self._annotate(unit.result(), clock), fetched))
        except FatalError as error:
            return Measured(0.0, 0.0, {}, (), (), (), None, 0, str(error))
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        dataset = self.worker.checkpoint.dataset
        return Measured(
            seconds=seconds,
            cpu_seconds=cpu,
            work=_work(clock),
            images=tuple(len({row["seq"] for row in rows}) for rows, _, _ in done),
            faces=tuple(sum(row["status"] == schema.OK for row in rows) for rows, _, _ in done),
            n_bytes=tuple(n_bytes for _, _, n_bytes in done),
            rows=pa.concat_tables([schema.to_table(rows, dataset, carried) for rows, carried, _ in done]),
            memory=1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        )

    def network_seconds(self, batch_sizes: Sequence[int]) -> dict[int, float]:
        """Seconds per face of the network by batch size, on noise: the pixels make no difference."""
        network, found = self.worker.network, {}
        assert isinstance(network, SegFaceNetwork)
        side, own = network.checkpoint.resolution, network.batch_size
        rng = np.random.default_rng(0)
        for size in batch_sizes:
            network.batch_size = size
            pixels = rng.integers(0, 256, (size, side, side, 3), dtype=np.uint8)
            landmarks = None
            if network.checkpoint.dataset.landmarks == "five":
                landmarks = np.tile(np.array(FIVE, np.float32) * side, (size, 1, 1))
            network.parse(pixels, landmarks)  # warms up
            started = time.perf_counter()
            for _ in range(BATCHES):
                network.parse(pixels, landmarks)
            found[size] = (time.perf_counter() - started) / (BATCHES * size)
        network.batch_size = own
        return found

    def _fetch(self, unit: bytes, clock: Clock) -> tuple[plan.Unit, list[FetchedImage]]:
        file = f"{hashlib.sha256(unit).hexdigest()}.parquet"
        storage.put(storage.join(runs.plan_folder(PLACE), file), unit)
        row: dict[str, Any] = {"file": file, "position": 0, "seqs": None, "any_length": False}
        return self.worker.fetch(row, clock)

    def _annotate(
        self, fetched: tuple[plan.Unit, list[FetchedImage]], clock: Clock
    ) -> tuple[list[dict[str, Any]], pa.Schema, int]:
        """The rows of a fetched unit after staging, its carried columns, and the bytes of its images."""
        (unit, images), target = fetched, storage.join(PLACE, "staging", f"{next(self.numbers)}.arrow")
        rows = self.worker.rows(images, clock)
        self.worker.stage(target, unit, rows, clock)
        storage.remove([target])
        return rows, unit.carried, sum(len(image.data) for image in images if image.data is not None)


def _work(clock: Clock) -> dict[str, float]:
    work = {stage: sum(span.cpu for span in clock.spans[stage]) for stage in STAGES}
    work["decode"] += work["detect"]
    work["fetch"] = sum(span.end - span.begin for span in clock.spans["fetch"])
    work["network"] = busy_seconds(clock.spans["network"])
    return work


def busy_seconds(spans: Sequence[Span]) -> float:
    """Seconds in which at least one of the spans lasted."""
    total, until = 0.0, float("-inf")
    for begin, end, _ in sorted(spans):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total
