"""Where the time of a unit goes, and what Prometheus learns of a run through Ray's own exporter.

A few numbers for each unit, never one for each image; nothing is exported from a process that has no Ray.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from time import perf_counter, thread_time
from typing import Any, NamedTuple

#: The stages of a unit, in the order in which an image passes them.  `network` includes waiting for the device.
STAGES = ("fetch", "decode", "detect", "network", "encode", "stage")

#: Counters: what they count, and their tags.
COUNTERS = {
    "segface_images_total": ("images with rows in staging", ("status", "error")),
    "segface_faces_total": ("faces with a mask", ()),
    "segface_bytes_total": ("bytes of encoded images fetched", ()),
    "segface_stage_seconds_total": ("seconds spent in a stage, summed over threads", ("stage",)),
}

BUSY = "segface_actors_busy"

_calls = 0
_lock = threading.Lock()


def count(name: str, amount: float, **tags: str) -> None:
    """Add to one of COUNTERS."""
    if amount > 0 and _has_ray():
        _counter(name).inc(amount, tags)


class Span(NamedTuple):
    """From when to when a thread was in a stage, and its CPU time there; all in seconds."""

    begin: float
    end: float
    cpu: float


class Clock:
    """The time that many threads spend in each stage."""

    def __init__(self) -> None:
        self.spans: dict[str, list[Span]] = {stage: [] for stage in STAGES}

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """Measures the block as a part of a stage."""
        begin, cpu = perf_counter(), thread_time()
        try:
            yield
        finally:
            self.spans[stage].append(Span(begin, perf_counter(), thread_time() - cpu))

    def seconds(self) -> dict[str, float]:
        """The seconds of each stage that was entered; threads side by side add up."""
        return {
            stage: sum(span.end - span.begin for span in spans) for stage, spans in self.spans.items() if len(spans)
        }


def count_seconds(seconds: Mapping[str, float]) -> None:
    """Add the seconds of a unit by stage to their counter."""
    for stage, spent in seconds.items():
        count("segface_stage_seconds_total", spent, stage=stage)


@contextmanager
def busy() -> Iterator[None]:
    """This process counts among the busy actors while it has units in it."""
    _enter(1)
    try:
        yield
    finally:
        _enter(-1)


def _enter(units: int) -> None:
    global _calls
    with _lock:
        _calls += units
        if _has_ray():
            _gauge().set(1 if _calls else 0)


def _has_ray() -> bool:
    ray: Any = sys.modules.get("ray")  # a worker has it anyway, and other processes must not wait for its import
    return ray is not None and ray.is_initialized()


@cache
def _counter(name: str) -> Any:
    from ray.util.metrics import Counter

    description, tags = COUNTERS[name]
    return Counter(name, description, tags)


@cache
def _gauge() -> Any:
    from ray.util.metrics import Gauge

    return Gauge(BUSY, "actors that have a unit in the network or near it")
