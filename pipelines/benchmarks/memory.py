"""How much memory does an actor need with large images and many faces: the most that its process has held?

    python -m pipelines.benchmarks.memory                    # demo-synthetic

Each kind of image has a process of its own, which parses three of the kind one after the other in one thread.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from pipelines.benchmarks import corpus
from segface_batch import Job
from segface_batch.inputs.image import SourceImage
from segface_batch.output.face import FetchedImage
from segface_batch.pipeline.metrics import Clock
from segface_batch.pipeline.resources import Resources
from segface_batch.pipeline.worker import Worker

#: Width and height in pixels, and columns and rows of faces.  The first shows what a process holds anyway.
KINDS = {
    "no face in 0.01 megapixels": (100, 100, 0, 0),
    "a face in 0.4 megapixels": (640, 640, 1, 1),
    "20 faces in 3 megapixels": (2000, 1500, 5, 4),
    "a face in 50 megapixels": (8660, 5774, 1, 1),
    "20 faces in 50 megapixels": (8660, 5774, 5, 4),
}


def photograph(width: int, height: int, columns: int, rows: int) -> bytes:
    """A JPEG with a grid of faces."""
    faces = []
    for number, path in enumerate(corpus.RENDERED[: columns * rows]):
        cells = width // columns, height // rows
        side = min(*cells, 1024) * 3 // 4
        place = number % columns * cells[0] + cells[0] // 8, number // columns * cells[1] + cells[1] // 8
        with Image.open(path) as face:
            faces.append((face.resize((side, side)), place))
    return corpus.jpeg(corpus.photograph(width, height, faces))


def measure(kind: str, folder: str) -> None:
    """In a process of its own: the image is the only file of the folder."""
    (file,) = Path(folder).iterdir()
    job = Job(
        folder,
        "memory://segface-benchmark",
        checkpoint="demo-synthetic",
        faces="detect",
        mask_space="image",
        engine="torch",
        device="cpu",
    )
    worker, data = Worker(job, Resources(num_gpus=0, threads=1), None), file.read_bytes()
    images = [FetchedImage(0, seq, SourceImage(file.name, str(file)), {}, data) for seq in range(3)]
    faces = sum(row["status"] == "ok" for row in worker.rows(images, Clock()))
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{kind}: {megabytes} MB, {faces // len(images)} faces", flush=True)


def main() -> None:
    for kind, sizes in KINDS.items():
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "image.jpg").write_bytes(photograph(*sizes))
            subprocess.run([sys.executable, "-m", "pipelines.benchmarks.memory", kind, folder], check=True)


if __name__ == "__main__":
    measure(*sys.argv[1:]) if sys.argv[1:] else main()
