"""What a job has to do: its images listed, or what an earlier run has left; with some units, evenly spread, to try."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from segface_batch.inputs.image import SourceImage
from segface_batch.job import Job
from segface_batch.output import parts, plan as plans, run as runs
from segface_batch.pipeline.planning import list_images
from segface_batch.progress import Progress

#: A longer listing is cut; the forecast for the whole input is a lower bound then.
LISTING_SECONDS = 60.0

#: Units kept while listing, from which the sample is taken.
KEPT = 256


@dataclass
class Todo:
    """Images, units, parts and bytes to do (`sizes_known` False: without bytes), and some of the units.

    `planned` counts the images that are done too.  `listed_all` is False where the listing was cut.
    """

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
        """A unit of `size` images, which are read only if it is tried."""
        if self.units % self.step == 0:
            self.kept.append((size, images))
            if len(self.kept) == 2 * KEPT:
                self.kept, self.step = self.kept[::2], 2 * self.step
        self.units += 1
        self.images += size

    def spread(self, count: int) -> list[tuple[int, Sequence[SourceImage]]]:
        """At most `count` of the units kept, each with its size."""
        count = min(count, len(self.kept))
        some = [self.kept[number * len(self.kept) // count] for number in range(count)]
        return [(size, images()) for size, images in some]


def list_todo(job: Job, progress: Progress) -> Todo:
    """All images of a new job, or as many as are listed in LISTING_SECONDS."""
    todo, until = Todo(), time.monotonic() + LISTING_SECONDS
    todo.carried, images = list_images(job, Counter(), progress)
    for members, sizes in plans.in_units(images, job.part_rows):
        todo.parts += 1
        todo.n_bytes += sum(image.n_bytes for image in members)
        todo.sizes_known &= all(image.n_bytes for image in members)
        for start, size in zip(itertools.accumulate(sizes, initial=0), sizes, strict=False):
            todo.add(size, lambda unit=members[start : start + size]: unit)
        if time.monotonic() > until:
            todo.listed_all = next(images, None) is None
            break
    todo.planned = todo.images
    return todo


def read_todo(job: Job, run: Mapping[str, Any], weights_sha256: str | None) -> Todo:
    """What an earlier run of the job has left."""
    out, folder = job.output, runs.plan_folder(job.output)
    runs.check(out, run, job, weights_sha256)
    plan = runs.read_plan(out, run)
    todo = Todo(sizes_known=False, carried=plan.carried)
    for planned, units in parts.find_unfinished(out, plan).items():
        todo.parts += 1
        for unit in units:
            at = unit - planned.first_unit
            todo.add(planned.sizes[at], lambda planned=planned, at=at: plans.read_unit(folder, planned.file, at).images)
    todo.planned = plan.images
    return todo
