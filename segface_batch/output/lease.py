"""A lease: a second driver on the same output is refused, because it would do the same work again.

`OUT/_segface/lease.json` is rewritten every few seconds while a run works.  The lease only saves work: the output is
right without it.  It compares no clocks of different machines.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segface_batch import storage

#: Seconds between beats, and without a beat before another machine's run counts as dead.
BEAT, SILENCE = 5.0, 12.0


class Lease:
    """The right to work on an output, until another run takes it over."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.content: dict[str, Any] = {"run": uuid.uuid4().hex, **this_process(), "beat": 0}
        self.ended = threading.Event()
        self.taken_by: dict[str, Any] | None = None

    def check(self) -> None:
        """RuntimeError once another run has taken over."""
        if self.taken_by is not None:
            raise RuntimeError(f"{_who(self.taken_by)} has taken over this output, so this one stops")

    def report(self, done: int, total: int) -> None:
        """Add to the lease how far the run is."""
        self.content |= {"images_done": done, "images": total}

    def beat(self) -> None:
        """Rewrite the object until the lease ends.  An OSError is ignored: the run itself will have it too."""
        while not self.ended.wait(BEAT):
            with contextlib.suppress(OSError):
                found = _read(self.place)
                if found is not None and found["run"] != self.content["run"]:
                    self.taken_by = found
                    return
                self.content["beat"] += 1
                storage.replace(self.place, json.dumps(self.content).encode())


@contextmanager
def hold(out: str, takeover: bool = False) -> Iterator[Lease]:
    """Hold the lease of an output; RuntimeError where another run is alive on it, but for `takeover`."""
    lease = Lease(storage.join(out, "_segface", "lease.json"))
    found = _read(lease.place)
    if found is not None and not takeover and _is_alive(found, lease.place):
        raise RuntimeError(
            f"{_who(found)} is working on '{out}'; wait for it, or add --takeover to stop it and continue its work"
        )
    storage.replace(lease.place, json.dumps(lease.content).encode())
    heart = threading.Thread(target=lease.beat, name="lease", daemon=True)
    heart.start()
    try:
        yield lease
    finally:
        lease.ended.set()
        # A store that does not answer must not keep a stopped run from ending.
        end = threading.Thread(target=_give_back, args=(lease, heart), daemon=True)
        end.start()
        end.join(1.0)


def _give_back(lease: Lease, heart: threading.Thread) -> None:
    heart.join()
    with contextlib.suppress(OSError):
        found = _read(lease.place)
        if found is not None and found["run"] == lease.content["run"]:
            storage.remove([lease.place])


def _read(place: str) -> dict[str, Any] | None:
    try:
        return json.loads(storage.read(place))
    except (FileNotFoundError, ValueError):  # absent, or no JSON: nobody's
        return None


def _is_alive(found: dict[str, Any], place: str) -> bool:
    here = this_process()
    if found["machine"] == here["machine"]:
        return found["started"] is not None and started(found["pid"]) == found["started"]
    ends = time.monotonic() + SILENCE
    while time.monotonic() < ends:
        time.sleep(BEAT / 5)
        now = _read(place)
        if now is None:
            return False
        if now != found:
            return True
    return False


def _who(content: dict[str, Any]) -> str:
    return f"another run (host {content['host']}, process {content['pid']})"


def this_process() -> dict[str, Any]:
    """Host, process and `machine`: the boot and the process namespace in which `pid` and `started` are valid."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    machine = f"{boot.read_text().strip()} {os.readlink('/proc/self/ns/pid')}" if boot.exists() else uuid.uuid4().hex
    return {"host": socket.gethostname(), "machine": machine, "pid": os.getpid(), "started": started(os.getpid())}


def started(pid: int) -> str | None:
    """When a process started, in ticks since boot; None where no process of that number runs."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]
