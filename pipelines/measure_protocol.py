"""What exactly-once costs: annotate, beside the same chain that ends in Ray's own write_parquet.

    python pipelines/measure_protocol.py [IMAGES]

Annotates rendered faces with `demo-synthetic` both ways, in paired rounds on one Ray, and prints seconds and the ratio
of the medians.  write_parquet makes no plan, stages nothing, and after a kill leaves what it leaves.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
from segface_batch.pipeline.actor import UnitActor

from segface_batch import Job, annotate, storage
from segface_batch.demo import FACES
from segface_batch.output import parts, run as runs
from segface_batch.pipeline.cluster import ray_running
from segface_batch.pipeline.dataset import FETCH_CPUS, Chain, Work
from segface_batch.pipeline.fetch import unnest

ROUNDS, WRITES = 5, 2


class Parse(UnitActor):
    """The same actors, whose rows go on."""

    def __call__(self, unit: pa.Table) -> pa.Table:
        return unnest(self.parsed(unit)["rows"])


def plain(job: Job, planned: str, out: str, weights_sha256: str) -> None:
    """The rows of the plan of another output, through the same fetch and parse, as write_parquet leaves them."""
    run = runs.read(planned)
    assert run is not None
    staging = parts.Staging(planned)
    works = [Work(r, unit, staging.unit(r, unit)) for r in runs.read_plan(planned, run).parts for unit in r.units]
    rows = Chain(job, planned, weights_sha256).units(works, actor=Parse)
    # By default a write takes a whole CPU, and waits for one; without a limit a worker is started for every unit.
    rows.write_parquet(out, ray_remote_args={"num_cpus": FETCH_CPUS}, concurrency=WRITES)


def main(images: int = 400) -> None:
    seconds: dict[str, list[float]] = {"annotate": [], "write_parquet": []}
    with tempfile.TemporaryDirectory() as name, ray_running():
        folder = Path(name)
        (folder / "in").mkdir()
        faces = sorted((FACES / "rendered").glob("*.jpg"))
        for number in range(images):
            shutil.copy(faces[number % len(faces)], folder / "in" / f"{number:05d}.jpg")
        for number in range(ROUNDS):
            job = Job(str(folder / "in"), str(folder / f"out-{number}"), checkpoint="demo-synthetic")
            started = time.perf_counter()
            annotate(job)
            seconds["annotate"].append(time.perf_counter() - started)
            run = runs.read(storage.absolute(job.output))
            assert run is not None
            started = time.perf_counter()
            plain(job, storage.absolute(job.output), str(folder / f"plain-{number}"), run["settings"]["weights_sha256"])
            seconds["write_parquet"].append(time.perf_counter() - started)
            print({way: round(times[-1], 2) for way, times in seconds.items()}, file=sys.stderr, flush=True)
    ours, theirs = (statistics.median(times) for times in seconds.values())
    print(f"{images} images: annotate {ours:.1f} s, write_parquet {theirs:.1f} s, ratio {ours / theirs:.3f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
