"""Settings that suit a machine better than those that were tried."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from segface_batch.forecast.sample import Sampled
from segface_batch.forecast.stages import Stage

#: A larger batch must gain more than this.
GAIN = 1.03


@dataclass(frozen=True)
class Proposal:
    """Values of the options of those names."""

    actors: tuple[int, int]
    threads: int
    batch_size: int
    num_gpus: float


def propose(sampled: Sampled, stages: Mapping[str, Stage], memory: int) -> tuple[Proposal, tuple[str, ...]]:
    """The settings, and for each that differs from what was tried the reason; `memory` are bytes of an actor."""
    advice, setup, batch = [], sampled.setup, sampled.batch_size
    most, threads = setup.actors, setup.resources.threads
    if setup.node_memory and setup.side_by_side * memory > setup.node_memory:
        most = max(1, int(most * setup.node_memory / (setup.side_by_side * memory)))
        advice.append(f"--actors {most}: memory has room for so many, {memory / 2**30:.1f} GiB each")
    if setup.resources.num_gpus:
        host = max(stages["decode"].ms_per_image, stages["encode"].ms_per_image)
        needed, room = math.ceil(host / stages["network"].ms_per_image), max(1, setup.cpus // most)
        if min(needed, room) > threads:
            threads = min(needed, room)
            advice.append(f"--threads {threads}: the GPU needs {needed} threads that decode, {room} CPUs are there")
    if sampled.batches:
        best = min(sampled.batches.values())
        batch = next(size for size, seconds in sorted(sampled.batches.items()) if seconds <= best * GAIN)
        if batch != sampled.batch_size:
            share = sampled.batches[batch] / sampled.batches[sampled.batch_size]
            advice.append(f"--batch-size {batch}: the network takes {share:.2f} of the time per face")
    return Proposal((most, most), threads, batch, setup.resources.num_gpus), tuple(advice)
