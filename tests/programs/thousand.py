"""The main job on many good and broken images, and whether the broken ones disturb the good ones.

    python -m tests.programs.thousand WEIGHTS FOLDER [--good 1000]

Annotates a corpus with and without its broken images, as a user who may not read everything, and prints rows by
status and error, images/s, peak memory of driver and workers (proportional set size), and how many good rows and
masks are equal in both.  WEIGHTS are those of mobilenet_celeba_512.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from tests import corpus
from tests.conftest import SMALL

#: Root reads files of mode 000, unless it gives up these permissions.
UNPRIVILEGED = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]

SAMPLE_SECONDS = 2.0


def annotate(source: Path, out: Path, weights: Path) -> tuple[str, dict[str, float]]:
    """What the command told, and peak MB of the driver, of all processes together and of the largest other one."""
    command = [sys.executable, "-m", "segface_batch.cli", "annotate", source, out, "--checkpoint", SMALL]
    command = [*UNPRIVILEGED, *map(str, command), "--weights", str(weights)]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    peaks = {"driver": 0.0, "all": 0.0, "largest worker": 0.0}
    while driver.poll() is None:
        memory: dict[int, float] = {}
        with contextlib.suppress(psutil.Error):
            for process in [psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    memory[process.pid] = process.memory_full_info().pss / 2**20
        others = [size for pid, size in memory.items() if pid != driver.pid]
        now = {
            "driver": memory.get(driver.pid, 0),
            "all": sum(memory.values()),
            "largest worker": max(others, default=0),
        }
        peaks = {name: max(peaks[name], now[name]) for name in peaks}
        time.sleep(SAMPLE_SECONDS)
    assert driver.stderr is not None
    told = driver.stderr.read()
    if driver.returncode != 0:
        raise SystemExit(told)
    return told.split("\n", 1)[1][-700:], peaks


def rows(out: Path) -> dict[str, dict[str, Any]]:
    """Statistics and mask by image_id, without the image's place in the plan and on the disk."""
    stats, masks = (pq.read_table(out / name).to_pylist() for name in ("stats", "masks"))
    together = {row["image_id"]: row | {"mask": mask["mask"]} for row, mask in zip(stats, masks, strict=True)}
    return {name: {k: row[k] for k in row if k not in ("unit", "seq", "uri")} for name, row in together.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--good", type=int, default=1000)
    chosen = parser.parse_args()
    clean, mixed = chosen.folder / "clean", chosen.folder / "mixed"
    corpus.write_corpus(clean, good=chosen.good)
    corpus.write_corpus(mixed, good=chosen.good)
    expected = corpus.write_broken(mixed) | {"odd/forbidden.jpg": "forbidden"}  # to root it is "empty"
    found = {}
    for source in (mixed, clean):
        told, peaks = annotate(source, chosen.folder / f"out-{source.name}", chosen.weights)
        print(f"== {source.name}\n{told}")
        print("peak MB:", ", ".join(f"{name} {size:.0f}" for name, size in peaks.items()), flush=True)
        found[source.name] = rows(chosen.folder / f"out-{source.name}")
    wrong = {name for name, reason in expected.items() if found["mixed"].get(name, {}).get("error") != reason}
    print(f"broken or odd: {len(expected)}, answered as expected: {len(expected) - len(wrong)}", sorted(wrong))
    print("rows by status:", dict(Counter(row["status"] for row in found["mixed"].values())))
    equal = sum(found["mixed"].get(name) == row for name, row in found["clean"].items())
    print(f"good rows with equal statistics and mask: {equal} of {len(found['clean'])}")


if __name__ == "__main__":
    main()
