"""Annotate a folder of face crops: the job to copy and edit.

    python pipelines/annotate_folder.py

Every setting of segface_batch.Job can stand here; the same run again finishes what is missing.  On a cluster set
RAY_ADDRESS, and give folders that every node sees.
"""

from __future__ import annotations

import sys

from segface_batch import Job, annotate
from segface_batch.progress import Line, report

JOB = Job(
    input="segface_batch/assets/faces/portraits",
    output="out",
    checkpoint="mobilenet_celeba_512",
)

if __name__ == "__main__":
    line = Line(sys.stderr)
    summary = annotate(JOB, line)
    line.end()
    print(report(summary))
