"""What a job would take before it runs: time, bytes, money, and which stage sets the pace.

Images of a sample, spread over the input, go through actors like those of the job (sample.py); what they measured
(trial.py) is carried over to all images that are to do (todo.py, estimate.py).  Nothing is written to the output.
"""

from __future__ import annotations

import time

from segface_batch import storage
from segface_batch.forecast.estimate import Forecast, estimate
from segface_batch.forecast.prices import Prices
from segface_batch.forecast.sample import run_sample
from segface_batch.forecast.todo import list_todo, read_todo
from segface_batch.job import Job
from segface_batch.output import run as runs
from segface_batch.pipeline import prepare
from segface_batch.pipeline.cluster import ray_running
from segface_batch.progress import Progress, Silence


def forecast(
    job: Job, sample: int = 64, prices: Prices | None = None, progress: Progress | None = None
) -> Forecast | None:
    """Try `sample` images of the job or a few more; None where nothing is left to do.

    ValueError and OSError, in one line, for what the user can fix; RuntimeError for what would end the job.
    """
    progress = progress or Silence()
    storage.configure(job.storage_options, job.s3_client)
    job = prepare.located(job)
    sha256 = prepare.weights_sha256(job, progress)
    started = time.monotonic()
    run = runs.read(job.output)
    job = prepare.with_engine(job, run, progress)
    todo = list_todo(job, progress) if run is None else read_todo(job, run, sha256)
    if not todo.units:
        return None
    progress.phase("starting Ray")
    with ray_running():
        seconds_before = time.monotonic() - started
        progress.phase("loading the model")
        sampled = run_sample(prepare.for_workers(job), sha256, todo, sample, progress)
    return estimate(job, todo, sampled, seconds_before, prices)
