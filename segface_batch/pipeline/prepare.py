"""What is settled before a run begins: its weights, its engine, and whether its network is compiled."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from segface_batch import storage
from segface_batch.class_tables import as_text
from segface_batch.job import Job
from segface_batch.model import engine as engines, weights
from segface_batch.pipeline.cluster import on_cluster
from segface_batch.progress import Progress
from segface_batch.storage.redact import redacted

#: Compiling takes a minute or two and saves 0.01 to 0.2 s per image: it pays from 500 to 4,000 images on, as the
#: checkpoint is (docs/speed.md).
COMPILE_FROM = 2_000


def located(job: Job) -> Job:
    """The job with output, weights, class table and file of storage options named so that workers, which may run in
    another folder, find them; a URL each node fetches itself."""
    given, options = job.weights and storage.absolute(job.weights), job.storage_options
    if options is not None and not options.lstrip().startswith("{"):
        options = os.path.abspath(options)
    device, table = job.device, job.class_table
    if table is not None:
        device, table = "cpu", as_text(table)
    return replace(
        job,
        output=storage.absolute(job.output),
        weights=given,
        storage_options=options,
        device=device,
        class_table=table,
    )


def for_workers(job: Job) -> Job:
    """The job without what signs its inputs, which workers do not read: Ray may show the arguments of its tasks."""
    return replace(job, input=tuple(redacted(place) for place in job.inputs))


def weights_sha256(job: Job, progress: Progress) -> str | None:
    """The sha256 of the job's weights, which are fetched if they must be; None for a network that was given none.

    ValueError where it is not the one that the job names.
    """
    if job.faces == "detect" and job.detector == "yunet":
        from segface_batch.model import yunet

        yunet.fetch()  # fails here where it would in every worker
    if job.class_table is not None or (job.network is not None and job.weights is None):
        return None
    progress.phase(f"getting the weights of {job.model.name}")
    file = weights.locate(job.model, job.weights, job.revision)
    if job.network is None:
        weights.check_kind(file)
    sha256 = weights.sha256(file)
    if job.weights_sha256 not in (None, sha256):
        raise ValueError(f"{file} has sha256 {sha256}, not {job.weights_sha256}; get the file again")
    return sha256


def with_engine(job: Job, run: Mapping[str, Any] | None, progress: Progress) -> Job:
    """The job with the engine that the run has, or with the one that is best here; the results' last bits depend on it,
    and on whether the network is compiled."""
    if run is not None:
        settings = run["settings"]
        engine = settings.get("engine", "auto") if job.engine == "auto" else job.engine
        return replace(job, engine=engine, compile=job.compile and settings.get("compile", False))
    if job.engine != "auto" or job.network is not None or job.class_table is not None:
        return job
    if on_cluster() or job.num_gpus or job.compile:  # of the machines of a cluster we know nothing
        return replace(job, engine="torch")
    job = replace(job, engine=engines.choose("auto", job.device))
    progress.note(f"the network is run by {job.engine}, {job.precision}; --engine chooses another")
    return job


def with_compiler(job: Job, images: int, progress: Progress) -> Job:
    """A job with `compile`, or the same without where that is no gain."""
    reason = None
    if images < COMPILE_FROM:
        reason = f"{images:,} images take less time than compiling, which pays from about {COMPILE_FROM:,} on"
    elif not on_cluster():
        reason = engines.no_compiler()
    if reason is None:
        return job
    progress.note(f"the network is not compiled: {reason}")
    return replace(job, compile=False)
