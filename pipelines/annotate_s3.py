"""Annotate face crops on S3, from bucket to bucket.

    python pipelines/annotate_s3.py s3://faces-in/images s3://faces-out/run-1

Credentials come from the environment or the machine's role.  Another server than Amazon's, or a key for this job alone,
is named in a file of fsspec's options for s3fs, which every node must see:

    python pipelines/annotate_s3.py s3://faces-in/images s3://faces-out/run-1 storage.json

On a cluster, set RAY_ADDRESS; deploy/ has Kubernetes, AWS, SkyPilot and Slurm.
"""

from __future__ import annotations

import sys

from segface_batch import Job, annotate
from segface_batch.pipeline.summary import report
from segface_batch.progress import Line

CHECKPOINT = "mobilenet_celeba_512"


def main(source: str, out: str, storage_options: str | None = None, checkpoint: str = CHECKPOINT) -> None:
    line = Line(sys.stderr)
    job = Job(
        source,
        out,
        checkpoint=checkpoint,
        storage_options=storage_options,
        s3_client="obstore",  # takes less CPU than s3fs; pip install 'segface-batch[fast-s3]'
        max_errors=1000,  # more than these stop the run
    )
    summary = annotate(job, line)
    line.end()
    print(report(summary))


if __name__ == "__main__":
    main(*sys.argv[1:])
