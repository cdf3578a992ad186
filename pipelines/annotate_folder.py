"""Annotate a folder of face crops: the job to copy and edit.

    python pipelines/annotate_folder.py segface_batch/assets/faces/portraits out

Every setting of segface_batch.Job can stand here.  The same command again finishes what is missing.  On a cluster, set
RAY_ADDRESS and give folders that every node sees.
"""

from __future__ import annotations

import sys

from segface_batch import Job, annotate
from segface_batch.pipeline.summary import report
from segface_batch.progress import Line

CHECKPOINT = "mobilenet_celeba_512"


def main(faces: str, out: str, checkpoint: str = CHECKPOINT) -> None:
    line = Line(sys.stderr)
    summary = annotate(Job(faces, out, checkpoint=checkpoint), line)
    line.end()
    print(report(summary))


if __name__ == "__main__":
    main(*sys.argv[1:])
