"""What the pipeline costs: `annotate`, beside a bare loop over the same images in as many processes.

    python pipelines/measure_overhead.py [IMAGES [ROUNDS [CHECKPOINT [WEIGHTS]]]]

The loop reads, decodes, parses and encodes, and writes nothing.  Prints seconds per image once running, their ratio,
and the start-up: seconds until `annotate` has its first rows.
"""

from __future__ import annotations

import sys

from segface_batch import Job, bench


def main(images: str = "2000", rounds: str = "3", checkpoint: str = "demo-synthetic", weights: str = "") -> None:
    with bench.corpus(int(images)) as folder:
        job = Job(str(folder / "in"), str(folder / "out"), checkpoint=checkpoint, weights=weights or None)
        (bare, ours), start = bench.overhead(job, int(rounds))
    print(
        f"{checkpoint}, {images} images: bare loop {1000 * bare.seconds:.1f} ms per image, annotate "
        f"{1000 * ours.seconds:.1f}, ratio {ours.ratio:.3f}; start-up {start:.1f} s"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
