"""Whether `segface-batch plan` tells the truth: what it says, beside the run that follows.

    python pipelines/measure_plan.py [IMAGES [CHECKPOINT [WEIGHTS]]]

Rendered faces, in paired rounds, each command in a process of its own; prints predicted and real wall
time and bytes written.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

from segface_batch import bench

ROUNDS = 3


def command(*words: object) -> tuple[str, float]:
    """What a command of segface-batch prints, and its seconds."""
    started = time.perf_counter()
    line = [sys.executable, "-m", "segface_batch.cli", *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout, time.perf_counter() - started


def main(images: str = "400", checkpoint: str = "demo-synthetic", weights: str | None = None) -> None:
    options = ["--checkpoint", checkpoint, *(["--weights", weights] if weights else [])]
    ratios = []
    with bench.corpus(int(images)) as folder:
        for number in range(ROUNDS):
            told, _ = command("plan", folder / "in", folder / f"out-{number}", *options, "--json")
            _, real = command("annotate", folder / "in", folder / f"out-{number}", *options)
            found = json.loads(told)
            predicted = found["rest"]["wall_seconds"]
            size = sum(path.stat().st_size for path in (folder / f"out-{number}").glob("*/*.parquet"))
            ratios.append(predicted / real)
            print(
                f"predicted {predicted:.1f} s, {found['start_seconds']:.1f} of them start-up, real {real:.1f} s, ratio "
                f"{ratios[-1]:.3f}; bytes written, ratio {found['rest']['written_bytes'] / size:.3f}",
                flush=True,
            )
    print(f"{checkpoint}, {images} images: predicted / real wall time {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
