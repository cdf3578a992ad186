"""What the faster ways to run the network change: pixels of all 14 checkpoints, and the F1 of demo-synthetic.

    python -m pipelines.measure_quality [CHECKPOINT ...] [--compile]

from a clone of the repository: checkpoints get weights that are filled by a rule (tests/filled.py), and parse the two
recorded images.  Prints Markdown; about a minute per checkpoint (compiling: several), 400 MB of disk.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from segface_batch.catalog import PUBLISHED
from segface_batch.model import quality
from tests import filled
from tests.programs.parity_table import crop, golden


def main(*arguments: str) -> None:
    modes = [mode for mode in quality.FASTER if not mode.compile or "--compile" in arguments]
    for line in quality.table(quality.scores(modes)):
        print(line, flush=True)
    print()

    def rows():
        for name in [each for each in arguments if each in PUBLISHED] or PUBLISHED:
            with tempfile.TemporaryDirectory() as folder:
                weights = filled.published_file(name, Path(folder))
                crops = [crop(PUBLISHED[name], image) for image in golden(name).meta["pictures"]]
                fives = [crop.landmarks for crop in crops if crop.landmarks is not None]
                pixels = np.stack([crop.pixels for crop in crops])
                yield from quality.agreements(name, str(weights), pixels, np.stack(fives) if fives else None, modes)

    for line in quality.table(rows()):
        print(line, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
