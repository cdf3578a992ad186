"""The event log of a run: JSON lines in `OUT/_segface/events/`.

    start      settings, actors, the cluster's resources
    progress   every minute, even when nothing moves: images, errors, images/s, seconds by stage, and how long ago the
               last unit was finished
    published  parts that readers can see now
    end, stop  how the run ended; missing where the driver was killed

An object holds an hour of one run and is replaced as a whole.  No run reads the log, and a run without work writes
none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from segface_batch import storage
from segface_batch.job import Job
from segface_batch.storage.redact import redacted, redacted_text

#: Seconds between two writes, and lines of an object before the next one begins.
INTERVAL, MOST_LINES = 60.0, 60


class Events:
    """The events of one run: the driver adds them, a thread writes them."""

    def __init__(self, out: str) -> None:
        started = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        self.place = storage.join(out, "_segface", "events", f"{started}-{uuid.uuid4().hex[:8]}")
        self.begin = self.last_unit = time.monotonic()
        self.lines: list[str] = []
        self.number = 0
        self.units = self.images = self.errors = 0
        self.seconds: dict[str, float] = {}
        self.totals = (0, 0)
        self.lock = threading.Lock()
        self.ended = threading.Event()

    def add(self, event: str, **content: Any) -> None:
        """Add a line, which is written within a minute."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self.lock:
            self.lines.append(json.dumps({"time": now, "event": event, **content}))

    def add_unit(self, images: int, errors: int, seconds: Mapping[str, float], done: int, total: int) -> None:
        """Count a unit (or a single image) that is staged, now that `done` of the plan's `total` images are."""
        with self.lock:
            self.last_unit = time.monotonic()
            self.units += 1
            self.images += images
            self.errors += errors
            self.totals = done, total
            for stage, spent in seconds.items():
                self.seconds[stage] = self.seconds.get(stage, 0.0) + spent

    def progress(self) -> dict[str, Any]:
        """How far the run is."""
        now = time.monotonic()
        with self.lock:
            done, total = self.totals
            return {
                "units": self.units, "images": self.images, "errors": self.errors, "done": done, "total": total,
                "images_per_second": round(self.images / (now - self.begin), 2),
                "seconds": {stage: round(spent, 2) for stage, spent in sorted(self.seconds.items())},
                "last_unit_seconds_ago": round(now - self.last_unit, 1),
            }  # fmt: skip

    def write(self) -> None:
        """Write the lines.  An OSError is ignored: the run itself will have it too."""
        with self.lock:
            lines = list(self.lines)
        with contextlib.suppress(OSError):
            storage.replace(f"{self.place}-{self.number:03d}.jsonl", "".join(f"{line}\n" for line in lines).encode())
            if len(lines) >= MOST_LINES:
                with self.lock:
                    self.lines = self.lines[len(lines) :]
                self.number += 1

    def keep_writing(self) -> None:
        """Write progress every INTERVAL until the run ends."""
        self.write()
        while not self.ended.wait(INTERVAL):
            self.add("progress", **self.progress())
            self.write()


@contextmanager
def record(out: str, job: Job, **about: Any) -> Iterator[Events]:
    """Log the run that the block is: its start, progress and end."""
    events = Events(out)
    events.add("start", settings=_settings(job), **about)
    writer = threading.Thread(target=events.keep_writing, name="events", daemon=True)
    writer.start()
    try:
        yield events
    except BaseException as stop:
        reason = "interrupted" if isinstance(stop, KeyboardInterrupt) else f"{type(stop).__name__}: {stop}"
        events.add("stop", reason=redacted_text(reason), **events.progress())
        raise
    else:
        events.add("end", **events.progress())
    finally:
        events.ended.set()
        # A store that does not answer must not keep a stopped run from ending.
        last = threading.Thread(target=_last, args=(events, writer), daemon=True)
        last.start()
        last.join(1.0)


def _last(events: Events, writer: threading.Thread) -> None:
    writer.join()
    events.write()


def _settings(job: Job) -> dict[str, Any]:
    """The job's settings, without signatures of URLs and without storage options given as JSON."""
    settings = dataclasses.asdict(job) | {"input": [redacted(place) for place in job.inputs]}
    settings |= {"weights": job.weights and redacted(job.weights), "output": redacted(job.output)}
    if job.storage_options is not None and job.storage_options.lstrip().startswith("{"):
        settings["storage_options"] = "given on the command line"
    return settings
