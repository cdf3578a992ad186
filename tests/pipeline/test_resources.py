from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segface_batch.job import Job
from segface_batch.pipeline import resources
from segface_batch.pipeline.resources import Resources, fewer_for_memory, gpu_threads, share
from tests.conftest import PORTRAITS


@pytest.mark.parametrize(
    ("cpus", "gpus", "num_gpus", "threads"),
    [(16, 1, 1, 12), (4, 1, 1, 3), (64, 8, 1, 6), (1, 1, 1, 1), (128, 1, 1, 16), (16, 1, 0.5, 6)],
)
def test_a_gpu_has_most_of_its_share_of_the_cpus(cpus: int, gpus: float, num_gpus: float, threads: int) -> None:
    assert gpu_threads(cpus, gpus, num_gpus) == threads


def job(tmp_path: Path, **settings: Any) -> Job:
    return Job(str(PORTRAITS), str(tmp_path / "out"), checkpoint="demo-synthetic", engine="torch", **settings)


def test_a_node_has_no_more_workers_than_its_memory_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container of four cores and 4 GB, of which Ray counts 2.8 beside its object store; a large node; both."""
    small, large = {"CPU": 5.0, "memory": 2.8e9}, {"CPU": 9.0, "memory": 50e9}
    for nodes, workers in (([small], 1), ([large], 8), ([small, large], 9), ([{"CPU": 3.0, "memory": 1e9}], 1)):
        monkeypatch.setattr(resources, "nodes", lambda nodes=nodes: nodes)
        assert share(job(tmp_path), 100) == (Resources(0.0, 1), (workers, workers))
    one = Resources(0.0, 1)
    monkeypatch.setattr(resources, "nodes", lambda: [small])
    assert share(job(tmp_path, actors=(3, 3)), 100)[1] == (3, 3)
    assert fewer_for_memory(job(tmp_path, actors=(3, 3)), 100, one, 3) is None
    assert fewer_for_memory(job(tmp_path), 1, one, 1) is None  # there is work for one only
    assert fewer_for_memory(job(tmp_path), 100, one, 1) == (
        "1 instead of 4 workers: Ray has 2.8 GB of memory, a worker may need 1.5 GB; --actors overrides it"
    )
    monkeypatch.setattr(resources, "nodes", lambda: [large])
    assert fewer_for_memory(job(tmp_path), 100, one, 8) is None


def test_workers_may_have_all_cpus_of_their_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "nodes", lambda: [{"CPU": 4.0, "memory": 8e9}] * 8)
    assert share(job(tmp_path, threads=4), 100) == (Resources(0.0, 4), (7, 7))
