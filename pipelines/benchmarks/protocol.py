"""What does exactly-once cost: `annotate`, beside the same workers whose rows go to Ray's own write_parquet?

    python -m pipelines.benchmarks.protocol [IMAGES [ROUNDS]]

Annotates rendered faces of 256 pixels with `demo-synthetic` both ways on one Ray.  write_parquet makes no plan, stages
nothing, and after a kill leaves what it leaves.
"""

from __future__ import annotations

import shutil
import sys

import pyarrow as pa

from pipelines.benchmarks import corpus
from pipelines.benchmarks.rounds import paired, timed
from segface_batch import Job, annotate
from segface_batch.output import parts, run as runs, schema
from segface_batch.pipeline.cluster import ray_running
from segface_batch.pipeline.dataset import units
from segface_batch.pipeline.metrics import Clock
from segface_batch.pipeline.resources import FETCH_CPUS
from segface_batch.pipeline.work import Work
from segface_batch.pipeline.worker import Worker

#: Tasks that write at the same time.
WRITES = 2


class RowsWorker(Worker):
    """The same worker, whose rows go on."""

    def __call__(self, work: pa.Table) -> pa.Table:
        """A row of `work.SCHEMA` -> the rows of the unit."""
        (row,) = work.to_pylist()
        clock = Clock()
        unit, images = self.fetch(row, clock)
        return schema.to_table(self.rows(images, clock), self.checkpoint.dataset, unit.carried)


def write_parquet(job: Job, out: str) -> None:
    """The rows of a job's finished run once more, as Ray writes them."""
    run = runs.read(job.output)
    assert run is not None
    staging = parts.Staging(job.output)
    works = [
        Work(planned, unit, staging.unit(planned, unit))
        for planned in runs.read_plan(job.output, run).parts
        for unit in planned.units
    ]
    rows = units(job, run["settings"]["weights_sha256"], works, worker=RowsWorker)
    # By default a write takes a whole CPU, and waits for one; without a limit a worker is started for every unit.
    rows.write_parquet(out, ray_remote_args={"num_cpus": FETCH_CPUS}, concurrency=WRITES)


def main(images: int = 400, rounds: int = 5) -> None:
    with corpus.folder(images, [path.read_bytes() for path in corpus.RENDERED]) as folder, ray_running():
        ours, theirs = folder / "ours", folder / "theirs"
        job = Job(str(folder / "in"), str(ours), checkpoint="demo-synthetic")

        def begin() -> None:
            for place in (ours, theirs):
                shutil.rmtree(place, ignore_errors=True)

        def annotated() -> float:
            begin()
            return timed(lambda: annotate(job))()

        ways = {"annotate": annotated, "write_parquet": timed(lambda: write_parquet(job, str(theirs)))}
        found = paired(ways, rounds, warm_up=False)
    medians = ", ".join(f"{way} {found.median(way):.1f} s" for way in ways)
    print(f"{images} images: {medians}, ratio {found.ratio('annotate', 'write_parquet'):.3f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
