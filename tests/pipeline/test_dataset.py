"""What Ray is asked for: how many workers, and how much at once in each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ray.data

from segface_batch.output.plan import PlannedPart
from segface_batch.pipeline import dataset
from segface_batch.pipeline.dataset import CALLS, GPU_CALLS, GPU_FETCHES
from segface_batch.pipeline.resources import Resources
from segface_batch.pipeline.work import Work
from tests import drivers


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("resources", "alone", "in_a_worker"),
    [
        (Resources(0.0, 1), False, {"max_concurrent_calls_per_actor": CALLS, "enable_true_multi_threading": True}),
        (Resources(1.0, 4), False, {"max_concurrent_calls_per_actor": GPU_CALLS, "enable_true_multi_threading": True}),
        (Resources(1.0, 4), True, {"max_tasks_in_flight_per_actor": 1}),
    ],
    ids=["cpu", "gpu", "alone"],
)
def test_a_worker_has_some_units_at_once_more_with_a_gpu_and_one_where_each_is_tried_alone(
    resources: Resources, alone: bool, in_a_worker: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    pools = {name: getattr(ray.data, name) for name in ("ActorPoolStrategy", "TaskPoolStrategy")}
    for name, pool in pools.items():
        monkeypatch.setattr(ray.data, name, lambda pool=pool, **given: asked.append(given) or pool(**given))
    monkeypatch.setattr(dataset, "share", lambda job, units: (resources, (1, 2)))
    drivers.write_images(tmp_path / "in", 1)
    dataset.units(
        drivers.job(tmp_path / "in", tmp_path / "out"),
        None,
        [Work(PlannedPart(0, 0, (1,), "part"), 0, "a")] * 20,
        alone=alone,
    )
    *fetching, workers = asked
    assert workers == {"min_size": 1, "max_size": 2, "initial_size": 1, **in_a_worker}
    assert fetching == ([{"size": 2 * GPU_FETCHES}] if resources.num_gpus else [])
