"""Planning, a whole run, a rerun and verify of many pictures, with a parser that costs nothing.

    python -m tests.scale 10000 100000 1000000

Every picture of the manifest is the same tiny file under a name of its own.  Prints for each number the seconds of the
run, of the same command when all is done, and when the last part and all that came after it are missing (a resume), of
`verify` and `verify --quick`, and the driver's peak memory.
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

from tests import drivers


def timed(*words: object) -> tuple[float, float]:
    """Seconds of a command of segface-batch, and its own peak memory in MB."""
    command = [sys.executable, "-m", "segface_batch.cli", *map(str, words)]
    started, peak = time.monotonic(), 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):
                peak = max(peak, watched.memory_info().rss / 2**20)
            time.sleep(0.05)
        assert process.stderr is not None
        told = process.stderr.read()
    if process.returncode:
        raise SystemExit(told)
    return time.monotonic() - started, peak


def main(numbers: list[int]) -> None:
    for pictures in numbers:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "a.png").write_bytes(b"not decoded")
            with open(folder / "manifest.csv", "w") as manifest:
                manifest.write("uri,image_id\n")
                manifest.writelines(f"a.png,{number:09d}/face.png\n" for number in range(pictures))
            out = folder / "out"
            words = ["annotate", folder / "manifest.csv", out, "--checkpoint", drivers.CHECKPOINT]
            words += ["--parser", "tests.stand_in:Free", "--part-rows", min(16_384, pictures // 4)]
            found = {"run": timed(*words), "rerun": timed(*words)}
            last = sorted((out / "stats").iterdir())[-1].stem
            for path in (out / "stats" / f"{last}.parquet", out / "_segface" / "manifest.json"):
                path.unlink()
            found["resume of one part"] = timed(*words)
            found["verify"] = timed("verify", out)
            found["verify --quick"] = timed("verify", out, "--quick")
            size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 2**20
            each = "; ".join(f"{what} {seconds:.1f} s, {peak:.0f} MB" for what, (seconds, peak) in found.items())
            print(f"{pictures:,} pictures: {each}; output {size:.0f} MB", flush=True)
            shutil.rmtree(out)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [10_000, 100_000])
