"""The Ray Data pipeline from planned units to staged rows: one `map_batches` of workers, before it another where GPUs
must not wait for storage.

One row of the data set is one unit.  What Ray itself drops (`max_errored_blocks`) are units whose worker process died
again and again.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from segface_batch.errors import FatalError
from segface_batch.job import Job
from segface_batch.pipeline import work
from segface_batch.pipeline.resources import FETCH_CPUS, SPARE_CPUS, share
from segface_batch.pipeline.work import Work
from segface_batch.pipeline.worker import Worker, fetched

if TYPE_CHECKING:
    import ray.data

#: Units in a worker at the same time: one has the network, while the next is fetched and decoded, or the last staged.
#: A GPU is done with a unit in less time than a PUT may take.  (Not measured on a GPU.)
CALLS, GPU_CALLS = 2, 3

#: Units that tasks fetch at the same time for a worker with a GPU, which takes hundreds of images/s, while a GET takes
#: 20-50 ms.  (Not measured on a GPU.)
GPU_FETCHES = 4

#: How often a task is repeated whose worker process died; unbounded, as Ray has it, an image that kills its worker
#: would be tried for ever.
MAX_RETRIES = 1

WHOLE_UNITS: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow"}


def reports(
    job: Job,
    weights_sha256: str | None,
    works: Sequence[Work],
    *,
    alone: bool = False,
    may_lose: int = 0,
    any_length: bool = False,
) -> Iterator[dict[str, Any]]:
    """A row of `work.REPORT` for each piece of work as it is staged; those whose worker process died are missing.

    With `alone`, nothing else is in a worker with a unit, whose death is then its own.  With `any_length` an image may
    have changed since it was planned.
    RuntimeError for more than `may_lose` lost units, FatalError for what every further unit would meet too.
    """
    if not works:
        return
    try:
        staged = units(job, weights_sha256, works, alone=alone, any_length=any_length)
        staged.context.max_errored_blocks = may_lose
        for row in staged.iter_rows():
            if row["fatal"] is not None:
                raise FatalError(f"{row['fatal']} (what is done is kept; the same command goes on from there)")
            yield row
    finally:
        # Ray Data keeps an actor until nobody refers to it, and leaves cycles that do.  One that died when its pass
        # was over is started again, and would keep the CPUs that the next pass, or publishing, waits for.
        gc.collect()


def units(
    job: Job,
    weights_sha256: str | None,
    works: Sequence[Work],
    *,
    worker: type = Worker,
    alone: bool = False,
    any_length: bool = False,
) -> ray.data.Dataset:
    """The pipeline: what the workers make of each piece of work, a row each."""
    import ray.data

    resources, (least, most) = share(job, len(works))
    flow: dict[str, Any] = {
        "max_concurrent_calls_per_actor": GPU_CALLS if resources.num_gpus else CALLS,
        "enable_true_multi_threading": True,
    }
    if alone:
        flow = {"max_tasks_in_flight_per_actor": 1}
    table = ray.data.from_arrow(work.to_table(works, any_length))
    table.context.enable_progress_bars = False
    table.context.print_on_execution_start = False
    table.context.target_max_block_size = 1  # each row a block
    with _retries_as_arguments():
        # Not repartition(), which holds a CPU until the last unit is handed out.
        table = table.map_batches(_each, batch_size=None, batch_format="pyarrow", num_cpus=0)
        if resources.num_gpus:
            table = table.map_batches(
                partial(fetched, job=job),
                compute=ray.data.TaskPoolStrategy(size=min(GPU_FETCHES * most, len(works))),
                num_cpus=FETCH_CPUS,
                max_retries=MAX_RETRIES,
                **WHOLE_UNITS,
            )
        return table.map_batches(
            worker,
            fn_constructor_args=(job, resources, weights_sha256),
            compute=ray.data.ActorPoolStrategy(min_size=least, max_size=most, initial_size=least, **flow),
            num_cpus=resources.threads - SPARE_CPUS,
            num_gpus=resources.num_gpus,
            max_task_retries=MAX_RETRIES,
            **WHOLE_UNITS,
        )


@contextmanager
def _retries_as_arguments() -> Iterator[None]:
    """Retries have no named parameter in Ray 2.60, which deprecates the only way to set them (pyproject.toml)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        yield


def _each(table: pa.Table) -> Iterator[pa.Table]:
    """Every unit as a block of its own."""
    return (table.slice(position, 1) for position in range(table.num_rows))
