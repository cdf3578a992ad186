"""Kill runs at random moments until nothing is left to kill, and see that nothing was lost.

    python -m tests.programs.fault_storm --kills 200 --seed 0 [--s3]

Starts a Ray of its own, annotates the same images again and again into new outputs, and kills the driver (two of
three times) or a worker process with SIGKILL, each time after a random wait.  A killed run is started again, blindly,
until its output is complete; then `verify` must find nothing, and every part must have the bytes of a run that nobody
disturbed.  Prints a line per kill.  With --s3 the output is on an S3 server, behind a proxy that fails a tenth of all
requests.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from segface_batch import storage
from segface_batch.output import schema
from segface_batch.output.verify import verify
from tests import drivers, fault_proxy, s3_server

#: Enough that a run takes some seconds.
IMAGES = 240

FAULTS = [
    {"fault": "slowdown", "p": 0.04},
    {"fault": "error500", "p": 0.02},
    {"fault": "reset", "p": 0.02},
    {"fault": "lost_ack", "p": 0.02, "method": "PUT"},
]


@contextlib.contextmanager
def own_ray() -> Iterator[int]:
    """RAY_ADDRESS leads to a Ray with nothing else in it; the process number of its raylet."""
    with tempfile.TemporaryDirectory(prefix="r") as folder:
        ray = str(Path(sys.executable).with_name("ray"))
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        (port,) = s3_server.free_ports(1)
        command = [ray, "start", "--head", f"--port={port}", "--num-cpus=3", f"--temp-dir={folder}", "--block"]
        os.environ["RAY_AUTH_MODE"] = "disabled"  # else every process would need the token
        head = subprocess.Popen([*command, "--include-dashboard=false", "--disable-usage-stats"], **quiet)
        os.environ["RAY_ADDRESS"] = f"127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + 60
            while not any("raylet" in p.name() for p in psutil.Process(head.pid).children(recursive=True)):
                assert time.monotonic() < deadline, "Ray did not start"
                time.sleep(0.2)
            time.sleep(3)
            yield head.pid
        finally:
            below = psutil.Process(head.pid).children(recursive=True)
            head.terminate()
            for process in below:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            head.wait()


class Storm:
    """Kills still to do, and what happened so far."""

    def __init__(self, kills: int, seed: int, ray: int) -> None:
        self.left, self.rng, self.ray, self.count = kills, random.Random(seed), ray, Counter[str]()

    def finishes(self, driver: subprocess.Popen[str], out: str) -> bool:
        """Whether the driver ends by itself and well; it is disturbed as long as there are kills left: now and then at
        any moment, mostly when it has written something."""
        while True:
            wait = self.rng.uniform(0.2, 9) if self.left else 300
            if self.left and self.rng.random() < 3 / 4:
                before = _written(out)
                while driver.poll() is None and _written(out) == before:
                    time.sleep(0.02)
                wait = self.rng.uniform(0, 1)
            with contextlib.suppress(subprocess.TimeoutExpired):
                _, told = driver.communicate(timeout=wait)
                self.count["ended well" if driver.returncode == 0 else "ended with an error"] += 1
                if driver.returncode:
                    print(f"  exit code {driver.returncode}: {told.splitlines()[-1:]}", flush=True)
                return driver.returncode == 0
            assert self.left, "a run hangs"
            self.left -= 1
            if self.rng.random() < 2 / 3:
                driver.kill()
                driver.communicate()
                self._tell("driver")
                return False
            self._kill_worker()

    def _kill_worker(self) -> None:
        below = psutil.Process(self.ray).children(recursive=True)
        workers = [p for p in below if _title(p).startswith("ray::") and "Agent" not in _title(p)]
        if workers:
            victim = self.rng.choice(workers)
            what = _title(victim).removeprefix("ray::").strip()[:40]
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
            self._tell(f"worker {what}")
        else:
            self.left += 1
            time.sleep(0.5)

    def _tell(self, what: str) -> None:
        self.count[what.split(" ")[0]] += 1
        print(f"kill {self.count['driver'] + self.count['worker']}: {what}", flush=True)


def _written(out: str) -> list[str]:
    return [name for folder in (*schema.TABLES, "_segface") for name in storage.list_names(f"{out}/{folder}", "")]


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def storm(kills: int, seed: int, ray: int, source: Path, outs: str, options: list[object]) -> Counter[str]:
    """Kill so often; what was killed, and how the runs ended."""
    whole = drivers.start(source, f"{outs}/whole", *options)
    _, told = whole.communicate(timeout=300)
    assert whole.returncode == 0, told
    expected = drivers.parts(f"{outs}/whole")
    storms = Storm(kills, seed, ray)
    while storms.left:
        out = f"{outs}/out-{storms.count['outputs']:04d}"
        while not storms.finishes(drivers.start(source, out, *options), out):
            pass
        report = verify(out)
        assert report.complete, report
        assert drivers.parts(out) == expected, f"{out} has other bytes"
        storms.count["outputs"] += 1
        storage.remove([out] if not storage.is_url(out) else [entry.place for entry in storage.list_objects(out)])
    return storms.count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--s3", action="store_true")
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="storm-")))
        drivers.write_images(folder / "in", IMAGES)
        outs, options = str(folder), []
        if chosen.s3:
            server = stack.enter_context(s3_server.running_server())
            proxy = stack.enter_context(fault_proxy.running_proxy(server.endpoint, seed=chosen.seed))
            file = drivers.storage_options(proxy.url, folder / "storage.json")
            outs, options = f"s3://{server.new_bucket()}", ["--storage-options", file]
            storage.configure(str(file))
            proxy.set_faults(FAULTS)
        ray = stack.enter_context(own_ray())
        begun = time.monotonic()
        count = storm(chosen.kills, chosen.seed, ray, folder / "in", outs, options)
        print(f"seed {chosen.seed}, {time.monotonic() - begun:.0f} s: {dict(count)}; every output complete and equal")


if __name__ == "__main__":
    main()
