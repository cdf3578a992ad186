"""What finding faces costs: milliseconds to detect, frame and parse, beside parsing the same pictures as ready crops.

    python pipelines/measure_faces.py [CHECKPOINT [WEIGHTS]]     # of CelebAMask-HQ

One thread, the rendered faces of the package, each in the middle of a picture of 640 x 640 pixels; medians of paired
rounds after one that warms up.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from PIL import Image

from segface_batch import FaceParser
from segface_batch.demo import FACES
from segface_batch.inputs.framing import Framed, frame, frame_faces
from segface_batch.model.mtcnn import Mtcnn

ROUNDS, SIDE = 5, 640


def photographs() -> list[Image.Image]:
    found = []
    for path in sorted((FACES / "rendered").glob("*.jpg")):
        picture = Image.new("RGB", (SIDE, SIDE), (90, 110, 100))
        with Image.open(path) as face:
            picture.paste(face, ((SIDE - face.width) // 2, (SIDE - face.height) // 2))
        found.append(picture)
    return found


def main(checkpoint: str = "demo-synthetic", weights: str | None = None) -> None:
    parser, detector = FaceParser(checkpoint, weights=weights, device="cpu", threads=1), Mtcnn()
    pictures = [picture for picture in photographs() if len(detector.detect(picture)) == 1]
    spent: dict[str, list[float]] = {"detect": [], "frame": [], "parse": [], "whole": []}

    def timed(step: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        spent[step].append((time.perf_counter() - started) / len(pictures) * 1000)
        return result

    def parse(frames: list[Framed]) -> None:
        for framed in frames:
            parser.labels(framed.pixels[None])

    for _ in range(ROUNDS + 1):
        faces = timed("detect", lambda: [detector.detect(picture) for picture in pictures])
        found = timed(
            "frame",
            lambda faces=faces: [
                framed
                for picture, each in zip(pictures, faces, strict=True)
                for framed in frame_faces(picture, parser.checkpoint, each)
                if isinstance(framed, Framed)
            ],
        )
        timed("parse", lambda found=found: parse(found))
        timed("whole", lambda: parse([frame(picture, parser.checkpoint) for picture in pictures]))
    medians = {step: statistics.median(times[1:]) for step, times in spent.items()}
    rounds = list(zip(*spent.values(), strict=True))[1:]
    ratios = [(detect + frame + parse) / whole for detect, frame, parse, whole in rounds]
    steps = ", ".join(f"{step} {ms:.0f} ms" for step, ms in medians.items())
    print(f"{checkpoint}, {len(pictures)} pictures with one face: {steps}; ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
