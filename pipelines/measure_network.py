"""How much faster the network runs than the published graph does eagerly in float32, for every way to run it.

    python -m pipelines.measure_network mobilenet_celeba_512 swinb_celeba_512 demo-synthetic [--rounds 5] [--compile]

from a clone of the repository: published checkpoints get weights that are filled by a rule (tests/filled.py).  Two
threads, one image at a time; the ways take turns, and a ratio is the median of those of each round.  The first call
of each warms it up, or compiles.  bf16 is left out on a CPU that does not have it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segface_batch import catalog
from segface_batch.model import engine, quality, weights as weight_files
from segface_batch.model.segface import normalised
from tests import filled
from tests.reference_graph import ReferenceGraph

THREADS = 2


def measure(name: str, weights: str | None, rounds: int, modes: list[quality.Mode]) -> None:
    checkpoint = catalog.find(name)
    side = checkpoint.resolution
    pixels = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    torch.set_num_threads(THREADS)
    network = weight_files.load(checkpoint, weight_files.locate(checkpoint, weights))
    graph = ReferenceGraph(checkpoint, network)
    ways: dict[str, Callable[[], Any]] = {"published": lambda: graph.classes(normalised(torch.from_numpy(pixels)))}
    for mode in modes:
        parser = mode.parser(name, weights, threads=THREADS)
        ways[str(mode)] = lambda parser=parser: parser.labels(pixels)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds + 1):
        for way, run in ways.items():
            started = time.perf_counter()
            run()
            seconds[way].append(time.perf_counter() - started)
    for way, taken in seconds.items():
        ratios = [base / own for base, own in zip(seconds["published"][1:], taken[1:], strict=True)]
        told = f"{statistics.median(taken[1:]):.3f} | {statistics.median(ratios):.2f} | {taken[0]:.1f}"
        print(f"| {name} | {way} | {told} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    chosen = parser.parse_args()
    print("| checkpoint | way | s per image | times as fast | s of the first call |\n|---|---|---|---|---|")
    for name in chosen.checkpoints:
        with tempfile.TemporaryDirectory() as folder:
            weights = None if name not in catalog.PUBLISHED else str(filled.published_file(name, Path(folder)))
            modes = [mode for mode in (quality.EXACT, *quality.FASTER) if chosen.compile or not mode.compile]
            usable = [mode for mode in modes if mode.precision == "fp32" or engine.cpu_has_bf16()]
            measure(name, weights, chosen.rounds, usable)
