"""A sign of life: two drivers on one output would do the same work twice.

`OUT/_segface/lease.json` is rewritten every few seconds while a run works.  It only spares work: what is written stays
right without it.  No clock is compared with another machine's.
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

#: Seconds between signs of life, and how long another machine's run may be silent before it counts as dead.
BEAT, SILENCE = 5.0, 12.0


class Lease:
    """The right to work on an output, until another run takes it over."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.content: dict[str, Any] = {"run": uuid.uuid4().hex, **_this_process(), "beat": 0}
        self.ended = threading.Event()
        self.taken_by: dict[str, Any] | None = None

    def check(self) -> None:
        """RuntimeError once another run has taken over."""
        if self.taken_by is not None:
            raise RuntimeError(f"{_who(self.taken_by)} has taken over this output, so this one stops")

    def tell(self, done: int, total: int) -> None:
        """Show to others how far the run is."""
        self.content |= {"images_done": done, "images": total}

    def beat(self) -> None:
        """Rewrite the object until the lease ends; what fails here, the run itself will meet."""
        while not self.ended.wait(BEAT):
            with contextlib.suppress(OSError):
                found = _read(self.place)
                if found is not None and found["run"] != self.content["run"]:
                    self.taken_by = found
                    return
                self.content["beat"] += 1
                storage.replace(self.place, json.dumps(self.content).encode())


@contextmanager
def held(out: str, takeover: bool = False) -> Iterator[Lease]:
    """Hold the lease of an output; RuntimeError where another run is alive on it, unless it shall be taken over."""
    lease = Lease(storage.join(out, "_segface", "lease.json"))
    found = _read(lease.place)
    if found is not None and not takeover and _is_alive(found, lease.place):
        raise RuntimeError(
            f"{_who(found)} is working on '{out}'; wait for it, or add --takeover to have it stop and go on from there"
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
    except FileNotFoundError:
        return None


def _is_alive(found: dict[str, Any], place: str) -> bool:
    here = _this_process()
    if found["machine"] == here["machine"]:
        return found["started"] is not None and _started(found["pid"]) == found["started"]
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


def _this_process() -> dict[str, Any]:
    """`machine` is the boot and the process namespace in which `pid` and its start time mean something."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    machine = f"{boot.read_text().strip()} {os.readlink('/proc/self/ns/pid')}" if boot.exists() else uuid.uuid4().hex
    return {"host": socket.gethostname(), "machine": machine, "pid": os.getpid(), "started": _started(os.getpid())}


def _started(pid: int) -> str | None:
    """When a process started, in ticks since boot; None where none of that number runs."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else fields[18]
