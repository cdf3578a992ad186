"""How is a CPU best divided: actors side by side, or threads inside one; one image at a time, or more?

    python -m pipelines.benchmarks.actors WEIGHTS [CHECKPOINT [ROUNDS]]

Prints images/s of the network alone for every division of the cores, and as ratios to one actor with all threads and
one image at a time.  Every round starts its processes anew and times them when all have loaded the network.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from pipelines.benchmarks.rounds import paired, side_by_side

ROUNDS, IMAGES = 5, 8


def prepare(checkpoint: str, weights: str, threads: int, batch: int) -> Callable[[], Any]:
    """What one actor does in a round."""
    from segface_batch.model.segface_network import SegFaceNetwork

    network = SegFaceNetwork(checkpoint, weights=weights, device="cpu", threads=threads, batch_size=batch)
    side = network.checkpoint.resolution
    pixels = np.random.default_rng(0).integers(0, 255, (IMAGES, side, side, 3), dtype=np.uint8)
    network.parse(pixels[:batch])  # warms up
    return lambda: network.parse(pixels)


def main(weights: str, checkpoint: str = "mobilenet_celeba_512", rounds: str = str(ROUNDS)) -> None:
    cores = len(os.sched_getaffinity(0))
    ways = {}
    for actors, threads, batch in [(1, cores, 1), (1, cores, 4), (cores, 1, 1), (cores, 1, 4)]:
        each = [(checkpoint, weights, threads, batch)] * actors
        name = f"{actors} actors x {threads} threads, batch {batch}"
        ways[name] = lambda each=each: side_by_side(prepare, each) / (IMAGES * len(each))
    found = paired(ways, int(rounds), warm_up=False)
    first = next(iter(ways))
    for name in ways:
        print(f"{name}: {1 / found.median(name):.2f} images/s, {found.ratio(first, name):.2f}x")


if __name__ == "__main__":
    main(*sys.argv[1:])
