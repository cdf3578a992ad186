"""Annotate photographs: find the faces, parse each of them, and ask which are large and frontal enough to keep.

    python pipelines/annotate_photographs.py segface_batch/assets/faces/portraits out

Masks are in pixels of the photograph, so that they can be laid over it.
"""

from __future__ import annotations

import sys

from segface_batch import Job, annotate
from segface_batch.curate.query import query, write
from segface_batch.pipeline.summary import report
from segface_batch.progress import Line

CHECKPOINT = "mobilenet_celeba_512"

#: Faces of at least 200 pixels whose eyes are both seen.
GOOD = """
    select image_id, face, round(score, 3) as score, box_right - box_left as box_width, px_hair
    from stats where box_right - box_left >= 200 and px_l_eye > 0 and px_r_eye > 0
    order by image_id, face
"""


def main(photographs: str, out: str, checkpoint: str = CHECKPOINT) -> None:
    line = Line(sys.stderr)
    job = Job(
        photographs,
        out,
        checkpoint=checkpoint,
        faces="detect",
        min_face=60,  # pixels of the longer side of the box
        max_faces=20,  # the largest ones of a photograph
        mask_space="image",
    )
    summary = annotate(job, line)
    line.end()
    print(report(summary))
    write(query(out, GOOD), "table", sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
