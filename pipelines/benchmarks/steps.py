"""Where does the time of an image go on this machine: the host's steps, and the ways to run the network?

    python -m pipelines.benchmarks.steps [CHECKPOINT [WEIGHTS [ROUNDS]]]

The host's steps run on one thread, the network on all threads of the machine or on its GPU.  Prints milliseconds per
image of 1024 pixels and ratios to the first line of each section, and which of host and network takes the longer.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from pipelines.benchmarks import corpus, modes
from pipelines.benchmarks.rounds import Paired, paired, timed
from segface_batch import catalog
from segface_batch.images import DEFAULT_MAX_PIXELS, masks, statistics
from segface_batch.images.crop import crop_image
from segface_batch.images.decode import decode
from segface_batch.images.measures import CroppedFace

ROUNDS = 5

#: Images of a round, of the steps of the host and of the network.
HOST_IMAGES, NETWORK_IMAGES = 24, 4


def host(checkpoint: str, rounds: int) -> Paired:
    """The steps before and after the network."""
    found, count, limit = catalog.find(checkpoint), HOST_IMAGES, DEFAULT_MAX_PIXELS
    jpegs = corpus.enlarged(corpus.RENDERED[:count])
    images = [decode(each, limit) for each in jpegs]
    crops = [crop_image(image, found) for image in images]
    labels = [corpus.labels(file, found.resolution) for file in corpus.TRUE_MASKS[:count]]
    faces = [
        lambda image=image, crop=crop, mask=mask: CroppedFace(
            mask, found.dataset, crop.transform, image.size, crop.pixels
        )
        for image, crop, mask in zip(images, crops, labels, strict=True)
    ]  # made anew each time: a face keeps what was measured
    steps: dict[str, Callable[[], Any]] = {
        "decode": lambda: [decode(each, limit) for each in jpegs],
        "crop": lambda: [crop_image(image, found) for image in images],
        "statistics": lambda: [statistics.measured(statistics.Mask((face := each()).labels, face)) for each in faces],
        "png": lambda: [masks.encode(mask) for mask in labels],
    }
    return paired({name: timed(work, count) for name, work in steps.items()}, rounds)


def network(checkpoint: str, weights: str | None, rounds: int) -> Paired:
    """The network in each of its modes."""
    ways = {}
    for mode in modes.here():
        network = mode.network(checkpoint, weights)
        pixels = corpus.pixels(max(NETWORK_IMAGES, network.batch_size), network.checkpoint.resolution)
        work: Callable[[], Any] = lambda network=network, pixels=pixels: network.parse(pixels)  # noqa: E731
        ways[str(mode)] = timed(work, len(pixels))
    return paired(ways, rounds)


def main(checkpoint: str = "demo-synthetic", weights: str = "", rounds: str = str(ROUNDS)) -> None:
    steps, ways = host(checkpoint, int(rounds)), network(checkpoint, weights or None, int(rounds))
    on_host = sum(map(steps.median, steps.seconds))
    print("section   step          ms per image   ratio")
    print(f"{'host':<10}{'all':<14}{1000 * on_host:>14.1f}{1:>8.2f}")
    for step in steps.seconds:
        ratio = steps.ratio(step, *steps.seconds)
        print(f"{'host':<10}{step:<14}{1000 * steps.median(step):>14.1f}{ratio:>8.2f}")
    first = str(modes.EXACT)
    for way in ways.seconds:
        print(f"{'network':<10}{way:<14}{1000 * ways.median(way):>14.1f}{ways.ratio(way, first):>8.2f}")
    cores = len(os.sched_getaffinity(0))
    in_network = min(ways.median(way) for way in ways.seconds if way.endswith("fp32"))
    slow = "the network" if in_network > on_host / cores else "the host"
    print(
        f"bottleneck: {slow}, in float32: {1000 * in_network:.1f} ms per image in the network, "
        f"{1000 * on_host / cores:.1f} beside it on {cores} cores"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
