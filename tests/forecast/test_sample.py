"""What a sample's actors are like: those of the job, as many as share a machine."""

from __future__ import annotations

from typing import Any

import pytest

from segface_batch import Job
from segface_batch.forecast import sample
from segface_batch.forecast.sample import Setup, find_setup
from segface_batch.pipeline import resources
from segface_batch.pipeline.dataset import GPU_FETCHES
from segface_batch.pipeline.resources import Resources


def setup(monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, float]], units: int = 100, **settings: Any) -> Setup:
    for module in (resources, sample):
        monkeypatch.setattr(module, "nodes", lambda: nodes)
    return find_setup(Job("s3://b/in", "s3://b/out", engine="torch", **settings), units)


def test_on_gpus_as_many_are_tried_as_the_largest_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"CPU": 17.0, "GPU": 2.0, "memory": 64e9}, {"CPU": 9.0, "GPU": 1.0, "memory": 32e9}]
    assert setup(monkeypatch, nodes) == Setup(25, 3.0, 64e9, Resources(1.0, 6), 3, 2, GPU_FETCHES)
    assert setup(monkeypatch, nodes, units=1) == Setup(25, 3.0, 64e9, Resources(1.0, 6), 1, 1, GPU_FETCHES)
    assert setup(monkeypatch, nodes, device="cpu").fetches == 1


def test_on_cpus_as_many_are_tried_as_the_largest_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"CPU": 9.0, "memory": 64e9}, {"CPU": 5.0, "memory": 64e9}]
    assert setup(monkeypatch, nodes) == Setup(13, 0.0, 64e9, Resources(0.0, 1), 12, 8, 1)
    assert setup(monkeypatch, [{"CPU": 1.0}]) == Setup(0, 0.0, 0.0, Resources(0.0, 1), 1, 1, 1)
