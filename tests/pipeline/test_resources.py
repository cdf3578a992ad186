from __future__ import annotations

import pytest

from segface_batch.pipeline.resources import gpu_threads


@pytest.mark.parametrize(
    ("cpus", "gpus", "num_gpus", "threads"),
    [(16, 1, 1, 12), (4, 1, 1, 3), (64, 8, 1, 6), (1, 1, 1, 1), (128, 1, 1, 16), (16, 1, 0.5, 6)],
)
def test_a_gpu_has_most_of_its_share_of_the_cpus(cpus: int, gpus: float, num_gpus: float, threads: int) -> None:
    assert gpu_threads(cpus, gpus, num_gpus) == threads
