"""What finding faces costs: milliseconds to detect, crop and parse, beside parsing the same images as ready crops.

    python pipelines/measure_faces.py [CHECKPOINT [WEIGHTS]]     # of CelebAMask-HQ

One thread, the rendered faces of the package, each in the middle of an image of 640 x 640 pixels; medians of paired
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
from segface_batch.images.crop import Crop, crop_faces, crop_image
from segface_batch.model.mtcnn import Mtcnn

ROUNDS, SIDE = 5, 640


def photographs() -> list[Image.Image]:
    found = []
    for path in sorted((FACES / "rendered").glob("*.jpg")):
        image = Image.new("RGB", (SIDE, SIDE), (90, 110, 100))
        with Image.open(path) as face:
            image.paste(face, ((SIDE - face.width) // 2, (SIDE - face.height) // 2))
        found.append(image)
    return found


def main(checkpoint: str = "demo-synthetic", weights: str | None = None) -> None:
    parser, detector = FaceParser(checkpoint, weights=weights, device="cpu", threads=1), Mtcnn()
    images = [image for image in photographs() if len(detector.detect(image)) == 1]
    spent: dict[str, list[float]] = {"detect": [], "crop": [], "parse": [], "whole": []}

    def timed(step: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        spent[step].append((time.perf_counter() - started) / len(images) * 1000)
        return result

    def parse(crops: list[Crop]) -> None:
        for crop in crops:
            parser.labels(crop.pixels[None])

    for _ in range(ROUNDS + 1):
        faces = timed("detect", lambda: [detector.detect(image) for image in images])
        found = timed(
            "crop",
            lambda faces=faces: [
                crop
                for image, each in zip(images, faces, strict=True)
                for crop in crop_faces(image, parser.checkpoint, each)
                if isinstance(crop, Crop)
            ],
        )
        timed("parse", lambda found=found: parse(found))
        timed("whole", lambda: parse([crop_image(image, parser.checkpoint) for image in images]))
    medians = {step: statistics.median(times[1:]) for step, times in spent.items()}
    rounds = list(zip(*spent.values(), strict=True))[1:]
    ratios = [(detect + crop + parse) / whole for detect, crop, parse, whole in rounds]
    steps = ", ".join(f"{step} {ms:.0f} ms" for step, ms in medians.items())
    print(f"{checkpoint}, {len(images)} images with one face: {steps}; ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
