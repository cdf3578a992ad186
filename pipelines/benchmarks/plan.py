"""Does `segface-batch plan` tell the truth: what it says, beside the run that follows?

    python -m pipelines.benchmarks.plan [IMAGES [CHECKPOINT [WEIGHTS [ROUNDS]]]]

Rendered faces; each command in a process of its own.  Prints predicted and real wall time and bytes written.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time

from pipelines.benchmarks import corpus
from pipelines.benchmarks.rounds import paired

ROUNDS = 3


def command(*words: object) -> tuple[str, float]:
    """What a command of segface-batch prints, and its seconds."""
    started = time.perf_counter()
    line = [sys.executable, "-m", "segface_batch.cli", *map(str, words)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout, time.perf_counter() - started


def main(images: str = "400", checkpoint: str = "demo-synthetic", weights: str = "", rounds: str = str(ROUNDS)) -> None:
    options = ["--checkpoint", checkpoint, *(["--weights", weights] if weights else [])]
    with corpus.folder(int(images)) as folder:
        job = [folder / "in", folder / "out", *options]

        def predicted() -> float:
            rest = json.loads(command("plan", *job, "--json")[0])["rest"]
            (folder / "predicted_bytes").write_text(str(rest["written_bytes"]))
            return rest["wall_seconds"]

        def real() -> float:
            _, seconds = command("annotate", *job)
            size = sum(path.stat().st_size for path in (folder / "out").glob("*/*.parquet"))
            print(f"bytes written: predicted / real {float((folder / 'predicted_bytes').read_text()) / size:.3f}")
            shutil.rmtree(folder / "out")
            return seconds

        found = paired({"predicted": predicted, "real": real}, int(rounds), warm_up=False)
    ratio = found.ratio("predicted", "real")
    print(f"{checkpoint}, {images} images: predicted / real wall time {ratio:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
