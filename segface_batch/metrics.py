"""What Prometheus learns of a run: counters of pictures, faces, bytes and seconds, through Ray's own exporter.

A few numbers for each unit, never one for each picture; nothing at all in a process that has no Ray.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from time import monotonic
from typing import Any

#: Where the seconds of a unit go; those of `parse` include waiting for the device.  Threads side by side add up.
STAGES = ("fetch", "decode", "detect", "parse", "encode", "stage")

#: Counters: what they count, and their tags.
COUNTERS = {
    "segface_pictures_total": ("pictures with rows in staging", ("status", "error")),
    "segface_faces_total": ("faces with a mask", ()),
    "segface_bytes_total": ("bytes of encoded pictures fetched", ()),
    "segface_stage_seconds_total": ("seconds spent in a stage, summed over threads", ("stage",)),
}

BUSY = "segface_actors_busy"

_calls = 0
_lock = threading.Lock()


def count(name: str, amount: float, **tags: str) -> None:
    """Add to one of COUNTERS."""
    if amount > 0 and _has_ray():
        _counter(name).inc(amount, tags)


class Seconds:
    """The seconds of one unit by stage, added up by many threads."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        begin = monotonic()
        try:
            yield
        finally:
            with self._lock:
                self.spent[stage] = self.spent.get(stage, 0.0) + monotonic() - begin

    def tell(self) -> None:
        """Add them to the counter."""
        for stage, seconds in self.spent.items():
            count("segface_stage_seconds_total", seconds, stage=stage)


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
    ray: Any = sys.modules.get("ray")  # a worker has it anyway, and nobody else shall wait for its import
    return ray is not None and ray.is_initialized()


@cache
def _counter(name: str) -> Any:
    from ray.util.metrics import Counter

    description, tags = COUNTERS[name]
    return Counter(name, description, tags)


@cache
def _gauge() -> Any:
    from ray.util.metrics import Gauge

    return Gauge(BUSY, "parser actors that have a unit")
