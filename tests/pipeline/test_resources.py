from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray

from segface_batch.job import Job
from segface_batch.pipeline import cluster, resources
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


def test_workers_with_a_gpu_are_where_gpus_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large, small, without = {"CPU": 32.0, "GPU": 2.0}, {"CPU": 9.0, "GPU": 1.0}, {"CPU": 64.0}
    for found, settings, expected in (
        ([large], {}, (Resources(1.0, 11), (2, 2))),
        ([large, small, without], {}, (Resources(1.0, 6), (3, 3))),  # as many threads as the smallest has
        ([small], {"num_gpus": 1.0}, (Resources(1.0, 6), (1, 1))),
        ([small], {"num_gpus": 0.5}, (Resources(0.5, 3), (2, 2))),
        ([small], {"num_gpus": 0.5, "threads": 8}, (Resources(0.5, 8), (1, 1))),
        ([small], {"device": "cpu"}, (Resources(0.0, 1), (8, 8))),
        ([small], {"device": "cpu", "actors": (1, 3)}, (Resources(0.0, 1), (1, 3))),
    ):
        monkeypatch.setattr(resources, "nodes", lambda found=found: found)
        assert share(job(tmp_path, **settings), 100) == expected, settings
    on_openvino = Job(str(PORTRAITS), str(tmp_path / "out"), checkpoint="demo-synthetic", engine="openvino")
    assert share(on_openvino, 100) == (Resources(0.0, 1), (8, 8))


def test_no_more_workers_start_than_there_are_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "nodes", lambda: [{"CPU": 9.0, "memory": 50e9}])
    assert [share(job(tmp_path), units)[1] for units in (7, 8, 9)] == [(7, 7), (8, 8), (8, 8)]


def test_what_ray_does_not_have_is_refused_with_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(resources, "nodes", lambda: [{"CPU": 5.0, "GPU": 1.0}])
    growing = ", or say --actors MIN:MAX with RAY_ADDRESS where nodes come when they are needed"
    for settings, said in (
        ({"num_gpus": 1.5}, f"1.5 GPU per worker asked for, Ray has 1; try --device cpu{growing}"),
        (
            {"device": "cpu", "actors": (5, 6)},
            f"5 workers of 1 threads asked for, Ray has 4 CPUs for them; lower --actors or --threads{growing}",
        ),
        (
            {"device": "cpu", "threads": 6},
            f"1 workers of 6 threads asked for, Ray has 4 CPUs for them; lower --actors or --threads{growing}",
        ),
    ):
        with pytest.raises(ValueError, match="asked for") as refused:
            share(job(tmp_path, **settings), 100)
        assert str(refused.value) == said
    assert share(job(tmp_path, device="cpu", actors=(4, 6)), 100)[1] == (4, 6)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")  # which may grow
    assert share(job(tmp_path, device="cuda", actors=(2, 6)), 100)[1] == (2, 6)


def test_nodes_that_have_died_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [{"Alive": alive, "Resources": {"CPU": cpus}} for alive, cpus in ((True, 4.0), (False, 8.0))]
    monkeypatch.setattr(ray, "nodes", lambda: found)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0, "memory": 1e9})
    assert resources.nodes() == [{"CPU": 4.0}]
    assert cluster.resources() == {"nodes": 1, "CPU": 4.0, "GPU": 0.0, "object_store_memory": 0.0}
