"""What Prometheus learns of a worker, and when."""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any

import pytest
import ray
import ray.util.metrics

from segface_batch.pipeline.metrics import Clock, Span


class Exporter:
    """Keeps what Ray's own exporter would be given."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def counter(self, name: str, description: str, tags: tuple[str, ...]) -> Any:
        exporter, self_tags = self, tags

        class Counter:
            def inc(self, amount: float, given: dict[str, str]) -> None:
                assert given.keys() == set(self_tags)
                exporter.told.append((name, amount, given))

        return Counter()

    def gauge(self, name: str, description: str) -> Any:
        exporter = self

        class Gauge:
            def set(self, value: float) -> None:
                exporter.told.append((name, value))

        return Gauge()


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Exporter:
    found = Exporter()
    monkeypatch.setattr(ray.util.metrics, "Counter", found.counter)
    monkeypatch.setattr(ray.util.metrics, "Gauge", found.gauge)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    return found


@pytest.fixture
def metrics() -> ModuleType:
    """The module as a new process has it."""
    spec = importlib.util.find_spec("segface_batch.pipeline.metrics")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_actor_is_busy_from_its_first_unit_to_its_last(exporter: Exporter, metrics: ModuleType) -> None:
    with metrics.busy():
        with metrics.busy():
            pass
        assert exporter.told == [("segface_actors_busy", value) for value in (1, 1, 1)]
    with pytest.raises(ValueError, match="of a unit"), metrics.busy():
        raise ValueError("of a unit")
    assert [value for _, value in exporter.told[3:]] == [0, 1, 0]


def test_counters_have_their_labels_and_nothing_is_counted_where_nothing_was(
    exporter: Exporter, metrics: ModuleType
) -> None:
    metrics.count("segface_images_total", 3, status="ok", error="")
    metrics.count("segface_faces_total", 0)
    metrics.count_seconds({"fetch": 0.5, "decode": 0.0})
    assert exporter.told == [
        ("segface_images_total", 3, {"status": "ok", "error": ""}),
        ("segface_stage_seconds_total", 0.5, {"stage": "fetch"}),
    ]


def test_without_ray_nothing_is_exported(
    exporter: Exporter, metrics: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    metrics.count("segface_faces_total", 3)
    with metrics.busy():
        pass
    assert exporter.told == []


def test_a_stage_takes_the_time_of_all_threads_in_it_also_what_they_wait() -> None:
    clock = Clock()
    clock.spans["fetch"] = [Span(1.0, 3.0, 0.1), Span(2.0, 2.5, 0.2)]
    with pytest.raises(ValueError, match="broken"), clock.of("decode"):
        raise ValueError("broken")
    found = clock.seconds()
    assert found.keys() == {"fetch", "decode"}
    assert found["fetch"] == 2.5
    assert 0 < found["decode"] < 1
