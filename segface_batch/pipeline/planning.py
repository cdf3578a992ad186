"""The images of a job, listed and written down as a plan."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from segface_batch import storage
from segface_batch.inputs import part_masks, sources
from segface_batch.inputs.image import SourceImage
from segface_batch.job import Job
from segface_batch.output import plan as plans, run as runs, schema
from segface_batch.output.known import Known
from segface_batch.progress import Progress
from segface_batch.storage.redact import redacted


def check_is_empty(out: str) -> None:
    """ValueError where an output on a store has other objects (Job checks folders)."""
    if storage.is_url(out):
        for entry in itertools.islice(storage.list_objects(out), 1000):
            if not entry.place.startswith(storage.join(out, "_segface", "")):
                raise ValueError(f"'{out}' holds other objects ({entry.place}); name a new prefix for the output")


def write_plan(job: Job, progress: Progress) -> tuple[str, pa.Schema]:
    """List and plan the images; the plan's name and the inputs' columns that are carried."""
    skipped: Counter[str] = Counter()
    carried, images = list_images(job, skipped, progress)
    return plans.write(runs.plan_folder(job.output), images, skipped, job.part_rows, carried=carried), carried


def list_images(job: Job, skipped: Counter[str], progress: Progress) -> tuple[pa.Schema, Iterator[SourceImage]]:
    """The inputs' columns that are carried, and the images of the job, of which there is one at least.

    `skipped` counts what else the inputs hold.  ValueError, in one line with a hint, where there is no image.
    """
    progress.phase("listing the images")
    carried, images = _images(job, skipped)
    first = next(images, None)
    if first is None:
        besides = ", ".join(f"{count} {kind}" for kind, count in skipped.items()) or "nothing else"
        where = " or ".join(f"'{redacted(place)}'" for place in job.inputs)
        raise ValueError(f"no images in {where} ({besides}); give the folder or manifest that has them")
    return carried, itertools.chain([first], images)


def plan_new_images(job: Job, run: Mapping[str, Any], progress: Progress) -> None:
    """Plan the images that no plan of the run has yet, as parts after its own."""
    progress.phase("looking for new images")
    plan, skipped, folder = runs.read_plan(job.output, run), Counter[str](), runs.plan_folder(job.output)
    known = Known(plans.read_part(folder, planned.file) for planned in plan.parts)
    carried, images = _images(job, skipped)
    images = (image for image in images if image not in known)
    first = next(images, None)
    if first is not None:
        name = plans.write(
            folder,
            itertools.chain([first], images),
            skipped,
            job.part_rows,
            carried=carried,
            first_unit=sum(len(planned.units) for planned in plan.parts),
            first_part=len(plan.parts),
        )
        runs.add(job.output, name)


def _images(job: Job, skipped: Counter[str]) -> tuple[pa.Schema, Iterator[SourceImage]]:
    dataset = job.model.dataset
    schema.check_carried(job.columns, dataset)
    carried, images = sources.list_images(
        job.inputs,
        skipped,
        placed_by=job.placed_by,
        columns=job.columns,
        image_column=job.image_column,
    )
    return carried, part_masks.grouped(images, dataset.class_names) if job.class_table is not None else images
