"""A trial: a parser actor on some units of a job, with a clock at every step; nothing is written but in memory."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import resource
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from segface_batch import storage
from segface_batch.actor import stage
from segface_batch.chain import CALLS
from segface_batch.inputs.fetch import fetch, unnest
from segface_batch.output import records
from segface_batch.parse import ParseUnits

#: In the order that a picture goes through them; detect is part of decode.
STEPS = ("fetch", "decode", "detect", "network", "encode", "stage")

#: Where units are planned and staged: in the memory of the process.
PLACE = "memory://segface-trial"

#: Of each size, that are timed.
BATCHES = 2

T = TypeVar("T")


@dataclass(frozen=True)
class Measured:
    """What one actor did, from the first unit to the last, in `seconds` and in CPU seconds of its process.

    `work` are seconds by step: CPU seconds of decode, detect, encode and stage, whose threads wait for cores; the time
    in which the network had pictures; the time that each unit waited for its bytes, added up.  `pictures`, `faces` and
    `n_bytes` are those of each unit, `rows` all staged rows, `memory` the most bytes the process had; `fatal` would end
    a job.
    """

    seconds: float
    cpu_seconds: float
    work: dict[str, float]
    pictures: tuple[int, ...]
    faces: tuple[int, ...]
    n_bytes: tuple[int, ...]
    rows: pa.Table | None
    memory: int
    fatal: str | None = None


def worker_seconds() -> float:
    """CPU seconds until a worker has imported Ray Data, as all of a job do."""
    importlib.import_module("ray.data")
    return time.process_time()


class Trial:
    """`parser` made with `arguments`, as in the chain; `fetching` are settings of `inputs.fetch.fetch`, of which
    `fetches` go on at the same time."""

    def __init__(
        self, parser: type[ParseUnits], arguments: dict[str, Any], fetching: dict[str, Any], fetches: int
    ) -> None:
        self.parse, self.fetching, self.fetches = parser(**arguments), fetching, fetches
        self.spans: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
        self.staging = {name: fetching[name] for name in ("storage_options", "s3_client")}
        self.numbers = itertools.count()
        self.seen: tuple[Any, ...] = ()
        for step, pool in (("decode", self.parse.decoders), ("encode", self.parse.encoders)):
            setattr(pool, "submit", partial(_submit, pool.submit, partial(self._clocked, step)))  # noqa: B010
        if self.parse.finds:
            setattr(self.parse.detector, "detect", self._clocked("detect", self.parse.detector.detect))  # noqa: B010
        self.labels = self.parse.parser.labels
        self.parse.parser.labels = self._clocked("network", self._labels)

    def batch_size(self) -> int:
        """Pictures in the network at once; answers when the actor is loaded."""
        return self.parse.parser.batch_size

    def run(self, units: Sequence[bytes]) -> Measured:
        """Units, each as a plan's file, from fetch to stage."""
        self.spans.clear()
        cpu, started = time.process_time(), time.perf_counter()
        with ThreadPoolExecutor(self.fetches) as fetchers, ThreadPoolExecutor(CALLS) as callers:
            fetched = [fetchers.submit(self._clocked("fetch", self._fetch), unit) for unit in units]
            done = list(callers.map(lambda unit: self._parsed(unit.result()), fetched))
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        fatal = next((fatal for _, _, fatal in done if fatal is not None), None)
        if fatal is not None:
            return Measured(seconds, cpu, {}, (), (), (), None, memory, fatal)
        tables = [rows for rows, _, _ in done]
        return Measured(
            seconds=seconds,
            cpu_seconds=cpu,
            work={step: self._work(step) for step in STEPS},
            pictures=tuple(len(set(rows["seq"].to_pylist())) for rows in tables),
            faces=tuple(rows["status"].to_pylist().count(records.OK) for rows in tables),
            n_bytes=tuple(n_bytes for _, n_bytes, _ in done),
            rows=pa.concat_tables(tables),
            memory=memory,
        )

    def network_seconds(self, batch_sizes: Sequence[int]) -> dict[int, float]:
        """Seconds per face of the network for several batch sizes; none of a parser that has no network."""
        if not self.seen:
            return {}
        pixels, landmarks = self.seen
        own, found = self.parse.parser.batch_size, {}
        for size in batch_sizes:
            self.parse.parser.batch_size = size
            batch = np.resize(pixels, (size, *pixels.shape[1:]))
            points = None if landmarks is None else np.resize(landmarks, (size, *landmarks.shape[1:]))
            self.labels(batch, points)  # warms up
            started = time.perf_counter()
            for _ in range(BATCHES):
                self.labels(batch, points)
            found[size] = (time.perf_counter() - started) / (BATCHES * size)
        self.parse.parser.batch_size = own
        return found

    def _labels(self, pixels: np.ndarray, landmarks: np.ndarray | None = None) -> np.ndarray:
        self.seen = pixels, landmarks
        return self.labels(pixels, landmarks)

    def _fetch(self, unit: bytes) -> pa.Table:
        file = f"{hashlib.sha256(unit).hexdigest()}.parquet"
        storage.put(storage.join(PLACE, file), unit)
        row = {"range": 0, "file": file, "position": 0, "seqs": None}
        return fetch(pa.Table.from_pylist([row]), plan_folder=PLACE, **self.fetching)

    def _parsed(self, unit: pa.Table) -> tuple[pa.Table, int, str | None]:
        """The rows of a fetched unit after staging, the bytes of its pictures, and what would end a job."""
        n_bytes = sum(len(data) for data in unnest(unit["pictures"])["data"].to_pylist() if data is not None)
        target = storage.join(PLACE, "staging", f"{next(self.numbers)}.arrow")
        parsed = self.parse(unit).append_column("target", pa.array([target]))
        staged = self._clocked("stage", stage)(parsed, **self.staging)
        storage.remove([target])
        return unnest(parsed["rows"]), n_bytes, staged["fatal"][0].as_py()

    def _clocked(self, step: str, function: Callable[..., T]) -> Callable[..., T]:
        def run(*arguments: Any, **named: Any) -> T:
            started, cpu = time.perf_counter(), time.thread_time()
            try:
                return function(*arguments, **named)
            finally:
                self.spans[step].append((started, time.perf_counter(), time.thread_time() - cpu))

        return run

    def _work(self, step: str) -> float:
        spans = self.spans[step]
        if step == "network":
            return _union(spans)
        return sum(end - start if step == "fetch" else cpu for start, end, cpu in spans)


def _submit(submit: Callable[..., Any], clocked: Callable[..., Any], function: Any, /, *arguments: Any) -> Any:
    return submit(clocked(function), *arguments)


def _union(spans: Sequence[tuple[float, float, float]]) -> float:
    """Seconds in which at least one of the spans was going on."""
    total, until = 0.0, float("-inf")
    for start, end, _ in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
