"""How a CPU is best divided: actors side by side, or threads inside one; one image at a time, or more.

    python pipelines/measure_actors.py WEIGHTS [CHECKPOINT]

Prints images/s of the parser alone for every division of the cores, in paired rounds, as ratios to one actor with
all threads and one image at a time.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import time

import numpy as np

ROUNDS, IMAGES = 5, 8


def work(checkpoint: str, weights: str, threads: int, batch: int, barrier, seconds) -> None:
    """One process: a round of IMAGES images whenever all processes are ready."""
    from segface_batch import FaceParser, catalog

    parser = FaceParser(checkpoint, weights=weights, device="cpu", threads=threads, batch_size=batch)
    side = catalog.find(checkpoint).resolution
    pixels = np.random.default_rng(0).integers(0, 255, (IMAGES, side, side, 3), dtype=np.uint8)
    parser.labels(pixels[:batch])
    for _ in range(ROUNDS):
        barrier.wait()
        started = time.perf_counter()
        parser.labels(pixels)
        barrier.wait()
        seconds.put(time.perf_counter() - started)


def main(weights: str, checkpoint: str = "mobilenet_celeba_512") -> None:
    cores = len(os.sched_getaffinity(0))
    spawn = multiprocessing.get_context("spawn")
    base = None
    for actors, threads, batch in [(1, cores, 1), (1, cores, 4), (cores, 1, 1), (cores, 1, 4)]:
        barrier, seconds = spawn.Barrier(actors), spawn.Queue()
        arguments = (checkpoint, weights, threads, batch, barrier, seconds)
        processes = [spawn.Process(target=work, args=arguments) for _ in range(actors)]
        for process in processes:
            process.start()
        median = statistics.median(seconds.get() for _ in range(ROUNDS * actors))
        for process in processes:
            process.join()
        rate = actors * IMAGES / median
        base = base or rate
        print(
            f"{actors} actors x {threads} threads, batch {batch}: {rate:.2f} images/s, {rate / base:.2f}x", flush=True
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
