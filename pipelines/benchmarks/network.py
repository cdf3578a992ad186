"""How much faster is the network than the published graph, run eagerly in float32, for every way to run it?

    python -m pipelines.benchmarks.network mobilenet_celeba_512 swinb_celeba_512 demo-synthetic [--rounds 5] [--compile]

Published checkpoints get weights that are filled by a rule (tests/filled.py).  Two threads, one image at a time.  The
first call of each way warms it up, or compiles.  bf16 is left out on a CPU that does not have it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.benchmarks import modes
from pipelines.benchmarks.rounds import paired, timed
from segface_batch import catalog
from segface_batch.model import engine, weights as weight_files
from segface_batch.model.segface import normalised
from tests import filled
from tests.reference_graph import ReferenceGraph

THREADS = 2

PUBLISHED = "published"


def measure(name: str, weights: str | None, rounds: int, ways: list[modes.Mode]) -> None:
    checkpoint = catalog.find(name)
    side = checkpoint.resolution
    pixels = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    torch.set_num_threads(THREADS)
    graph = ReferenceGraph(checkpoint, weight_files.load(checkpoint, weight_files.locate(checkpoint, weights)))
    works: dict[str, Callable[[], Any]] = {PUBLISHED: lambda: graph.classes(normalised(torch.from_numpy(pixels)))}
    for mode in ways:
        network = mode.network(name, weights, device="cpu", threads=THREADS)
        works[str(mode)] = lambda network=network: network.parse(pixels)
    found = paired({way: timed(work) for way, work in works.items()}, rounds)
    for way in works:
        told = f"{found.median(way):.3f} | {found.ratio(PUBLISHED, way):.2f} | {found.first[way]:.1f}"
        print(f"| {name} | {way} | {told} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--compile", action="store_true")
    chosen = parser.parse_args()
    ways = modes.on_cpu(compiled=chosen.compile, bf16=engine.cpu_has_bf16())
    print("| checkpoint | way | s per image | times as fast | s of the first call |\n|---|---|---|---|---|")
    for name in chosen.checkpoints:
        with tempfile.TemporaryDirectory() as folder:
            weights = None if name not in catalog.PUBLISHED else str(filled.published_file(name, Path(folder)))
            measure(name, weights, chosen.rounds, ways)


if __name__ == "__main__":
    main()
