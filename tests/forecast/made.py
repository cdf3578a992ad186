"""What a trial could have measured, to see what a forecast makes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa

from segface_batch.forecast.sample import Sampled, Setup
from segface_batch.forecast.trial import Measured
from segface_batch.pipeline.metrics import STAGES
from segface_batch.pipeline.resources import Resources

#: Two of four actors were tried, each with a GPU, two threads and three units that are fetched for it.
SETUP = Setup(
    cpus=4, gpus=4.0, node_memory=0.0, resources=Resources(1.0, 2), actors=4, side_by_side=2, fetches=3
)  # fmt: skip


def measured(rows: pa.Table | None = None, **work: float) -> Measured:
    """Two units of ten images with two faces each, in two seconds."""
    return Measured(
        seconds=2.0,
        cpu_seconds=1.0,
        work={stage: work.get(stage, 0.0) for stage in STAGES},
        images=(10, 10),
        faces=(20, 20),
        n_bytes=(10_000, 10_000),
        rows=rows,
        memory=2**30,
    )


def sampled(*actors: Measured, setup: Setup = SETUP, **changes: Any) -> Sampled:
    made = Sampled(
        setup=setup,
        start_seconds=5.0,
        worker_seconds=2.0,
        units=((10, True), (10, False)),
        measured=actors,
        batch_size=1,
        batches={},
    )
    return replace(made, **changes)
