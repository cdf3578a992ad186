"""Memory of an actor with large images and many faces: the most that its process has held, for one image of a kind.

    python -m pipelines.measure_memory                    # from a clone; demo-synthetic

Each kind has a process of its own, which parses three such images one after the other in one thread; the first line
is what the process holds before any.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from segface_batch.pipeline.parse import ParseUnits

from segface_batch.demo import FACES
from segface_batch.pipeline import metrics

PARSER = {"checkpoint": "demo-synthetic", "device": "cpu", "threads": 1, "engine": "torch"}

#: width, height, and columns and rows of faces.
KINDS = {
    "nothing yet": (0, 0, 0, 0),
    "a face in 0.4 megapixels": (640, 640, 1, 1),
    "20 faces in 3 megapixels": (2000, 1500, 5, 4),
    "a face in 50 megapixels": (8660, 5774, 1, 1),
    "20 faces in 50 megapixels": (8660, 5774, 5, 4),
}


def photograph(width: int, height: int, columns: int, rows: int) -> bytes:
    scene, sink = Image.new("RGB", (width, height), (90, 110, 100)), BytesIO()
    cells = width // columns, height // rows
    side = min(*cells, 1024) * 3 // 4
    for number, path in enumerate(sorted((FACES / "rendered").glob("*.jpg"))[: columns * rows]):
        with Image.open(path) as face:
            place = number % columns * cells[0] + cells[0] // 8, number // columns * cells[1] + cells[1] // 8
            scene.paste(face.resize((side, side)), place)
    scene.save(sink, "JPEG", quality=90)
    return sink.getvalue()


def main(kind: str | None = None, file: str = "") -> None:
    if kind is None:
        for name, sizes in KINDS.items():
            with tempfile.NamedTemporaryFile(suffix=".jpg") as image:
                image.write(photograph(*sizes) if sizes[0] else b"")
                image.flush()
                subprocess.run([sys.executable, "-m", "pipelines.measure_memory", name, image.name], check=True)
        return
    parser, rows = ParseUnits(PARSER, 80_000_000, detector={"name": "mtcnn"}, mask_space="image"), []
    assert parser.detector is not None  # loaded now
    data = Path(file).read_bytes()
    if data:
        known = {"unit": 0, "image_id": "a", "uri": "a", "landmarks": None, "error": None, "data": data}
        rows = parser._rows([known | {"seq": seq} for seq in range(3)], metrics.Seconds())
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{kind}: {megabytes} MB, {len(rows) // 3} faces")


if __name__ == "__main__":
    main(*sys.argv[1:])
