"""Planning, a whole run, a rerun and verify of many images, with a network that costs nothing.

    python -m tests.programs.scale 1000 10000 100000 1000000

Every image of the manifest is the same tiny file under a name of its own.  Prints for each number the seconds of the
run, of which start-up, milliseconds per image after that, and how these grow in the run; of the same command when all
is done, and when the last part and all that came after it are missing (a resume); of `verify` and `verify --quick`; and
peak memory of the driver and, in the run, of the largest worker.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from pipelines.benchmarks.overhead import RunClock

NETWORK = "tests.stand_in:Free"

#: Seconds between looks at the memory of the command, and of its workers, which are many.
OFTEN, SELDOM = 0.05, 1.0


def timed(*words: object) -> tuple[float, float]:
    """Seconds of a command of segface-batch, and its own peak memory in MB."""
    seconds, peak, _, _ = watched([sys.executable, "-m", "segface_batch.cli", *map(str, words)])
    return seconds, peak


def watched(command: list[str]) -> tuple[float, float, float, str]:
    """Seconds of a command, peak memory in MB of its own process and of its largest worker, and what it printed."""
    started, peak, of_workers, looked = time.monotonic(), 0.0, 0.0, 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        own = psutil.Process(process.pid)
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):
                peak = max(peak, own.memory_info().rss / 2**20)
                if time.monotonic() - looked > SELDOM:
                    looked = time.monotonic()
                    workers = [each for each in own.children(recursive=True) if "ray::" in " ".join(each.cmdline())]
                    of_workers = max([of_workers, *(each.memory_info().rss / 2**20 for each in workers)])
            time.sleep(OFTEN)
        printed, told = process.communicate()
    if process.returncode:
        raise SystemExit(told)
    return time.monotonic() - started, peak, of_workers, printed


class Growth(RunClock):
    """Also times when a tenth, half and nine tenths of the images were done."""

    def __init__(self) -> None:
        super().__init__()
        self.at: dict[float, tuple[float, int]] = {}

    def images(self, done: int, total: int, errors: int) -> None:
        super().images(done, total, errors)
        for share in (0.1, 0.5, 0.9):
            if done >= share * total:
                self.at.setdefault(share, self.last)

    @property
    def ratio(self) -> float:
        """Seconds per image between half and nine tenths, to those before."""
        begin, middle, end = self.at.values()
        early, late = ((b - a) / max(1, n - m) for (a, m), (b, n) in ((begin, middle), (middle, end)))
        return late / early


#: A run in a process of its own: prints seconds of start-up and per image, and how these grow.
RUN = """
import os, sys
from segface_batch import Job, annotate
from tests.programs import scale
clock = scale.Growth()
source, out, rows = sys.argv[1:]
annotate(Job(source, out, network=scale.NETWORK, part_rows=int(rows)), clock)
print(clock.start_seconds, clock.seconds_per_image(len(os.sched_getaffinity(0))), clock.ratio)
"""


def main(numbers: list[int]) -> None:
    for images in numbers:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "a.png").write_bytes(b"not decoded")
            with open(folder / "manifest.csv", "w") as manifest:
                manifest.write("uri,image_id\n")
                manifest.writelines(f"a.png,{number:09d}/face.png\n" for number in range(images))
            out = folder / "out"
            rows = min(16_384, images // 4)
            words = ["annotate", folder / "manifest.csv", out, "--network", NETWORK, "--part-rows", rows]
            run = [sys.executable, "-c", RUN, *map(str, (folder / "manifest.csv", out, rows))]
            seconds, peak, of_workers, printed = watched(run)
            start, each, growth = map(float, printed.split()[-3:])
            print(
                f"{images:,} images: start-up {start:.1f} s, then {1000 * each:.3f} ms per image, {growth:.2f} "
                f"times as much in the second half as in the first; largest worker {of_workers:.0f} MB",
                flush=True,
            )
            found = {"run": (seconds, peak), "rerun": timed(*words)}
            last = sorted((out / "stats").iterdir())[-1].stem
            for path in (out / "stats" / f"{last}.parquet", out / "_segface" / "manifest.json"):
                path.unlink()
            found["resume of one part"] = timed(*words)
            found["verify"] = timed("verify", out)
            found["verify --quick"] = timed("verify", out, "--quick")
            size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 2**20
            told = "; ".join(f"{what} {seconds:.1f} s, {peak:.0f} MB" for what, (seconds, peak) in found.items())
            print(f"{images:,} images: {told}; output {size:.0f} MB", flush=True)
            shutil.rmtree(out)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [10_000, 100_000])
