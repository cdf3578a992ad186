"""What does the pipeline cost: `annotate` beside a bare loop over the same images in as many processes?

    python -m pipelines.benchmarks.overhead [IMAGES [ROUNDS [CHECKPOINT [WEIGHTS]]]]

The loop reads, decodes, parses, measures and encodes, and writes nothing.  Prints seconds per image, of `annotate` from
its first rows to its last, the ratio of both, and the start-up: seconds until `annotate` has its first rows.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.benchmarks import corpus
from pipelines.benchmarks.rounds import paired, side_by_side
from segface_batch import Job, annotate
from segface_batch.pipeline.resources import Resources
from segface_batch.progress import Silence


class RunClock(Silence):
    """A run's progress, timed: from its start to the first rows (`start_seconds`), and from there to the last."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.first = self.last = (0.0, 0)

    def images(self, done: int, total: int, errors: int) -> None:
        self.last = (time.monotonic(), done)
        self.first = self.last if self.first[1] == 0 else self.first

    @property
    def start_seconds(self) -> float:
        return self.first[0] - self.started

    def seconds_per_image(self, actors: int) -> float:
        """When an actor has its first unit of rows, the others nearly have theirs too."""
        return (self.last[0] - self.first[0]) / (self.last[1] - actors * self.first[1])


def bare(paths: Sequence[Path], job: Job, resources: Resources, weights_sha256: str | None) -> Callable[[], Any]:
    """What one process of the loop does: an image, or a batch of them, after the other."""
    from segface_batch.images import masks, statistics as table
    from segface_batch.images.crop import crop_image
    from segface_batch.images.decode import decode
    from segface_batch.images.measures import CroppedFace
    from segface_batch.pipeline.worker import load_network

    network = load_network(job, resources, weights_sha256)
    checkpoint, size = network.checkpoint, network.batch_size

    def some(chosen: Sequence[Path]) -> None:
        images = [decode(path.read_bytes(), job.max_pixels) for path in chosen]
        crops = [crop_image(image, checkpoint) for image in images]
        parsed = network.parse(np.stack([crop.pixels for crop in crops]))
        for image, crop, (mask, told) in zip(images, crops, parsed.masks(), strict=True):
            face = CroppedFace(mask, checkpoint.dataset, crop.transform, image.size, crop.pixels)
            table.measured(table.Mask(mask, face, told))
            masks.encode(mask)

    def work() -> None:
        for first in range(0, len(paths), size):
            some(paths[first : first + size])

    some(paths[:size])  # warms up
    return work


def main(images: str = "2000", rounds: str = "3", checkpoint: str = "demo-synthetic", weights: str = "") -> None:
    from segface_batch.pipeline import prepare
    from segface_batch.pipeline.cluster import ray_running
    from segface_batch.pipeline.resources import share

    starts: list[float] = []
    with corpus.folder(int(images)) as folder:
        job = Job(str(folder / "in"), str(folder / "out"), checkpoint=checkpoint, weights=weights or None)
        paths = sorted((folder / "in").iterdir())
        sha256 = prepare.weights_sha256(job, Silence())
        with ray_running():
            resources, (_, actors) = share(job, len(paths))

        def bare_loop() -> float:
            each = [(paths[number::actors], job, resources, sha256) for number in range(actors)]
            return side_by_side(bare, each) / len(paths)

        def annotated() -> float:
            clock = RunClock()
            annotate(job, clock)
            shutil.rmtree(job.output)
            starts.append(clock.start_seconds)
            return clock.seconds_per_image(actors)

        found = paired({"bare loop": bare_loop, "annotate": annotated}, int(rounds), warm_up=False)
    loop, ours = found.median("bare loop"), found.median("annotate")
    print(
        f"{checkpoint}, {images} images: bare loop {1000 * loop:.1f} ms per image, annotate {1000 * ours:.1f}, "
        f"ratio {ours / loop:.3f}; start-up {statistics.median(starts):.1f} s"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
