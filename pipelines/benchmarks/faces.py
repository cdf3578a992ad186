"""What does finding faces cost: milliseconds to detect, crop and parse, beside parsing the same images as ready crops?

    python -m pipelines.benchmarks.faces [CHECKPOINT [WEIGHTS [ROUNDS]]]     # of CelebAMask-HQ

One thread; the rendered faces of the package, each in the middle of an image of 640 x 640 pixels.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from PIL import Image

from pipelines.benchmarks import corpus
from pipelines.benchmarks.rounds import paired, timed
from segface_batch.images.crop import Crop, crop_faces, crop_image
from segface_batch.model.mtcnn import Mtcnn
from segface_batch.model.segface_network import SegFaceNetwork

ROUNDS, SIDE = 5, 640


def photographs() -> list[Image.Image]:
    found = []
    for path in corpus.RENDERED:
        with Image.open(path) as face:
            middle = (SIDE - face.width) // 2, (SIDE - face.height) // 2
            found.append(corpus.photograph(SIDE, SIDE, [(face, middle)]))
    return found


def main(checkpoint: str = "demo-synthetic", weights: str = "", rounds: str = str(ROUNDS)) -> None:
    network, detector = SegFaceNetwork(checkpoint, weights=weights or None, device="cpu", threads=1), Mtcnn()
    images = [image for image in photographs() if len(detector.detect(image)) == 1]
    faces = [detector.detect(image) for image in images]

    def crop() -> list[Crop]:
        return [
            crop
            for image, each in zip(images, faces, strict=True)
            for crop in crop_faces(image, network.checkpoint, each)
            if isinstance(crop, Crop)
        ]

    def parse(crops: Iterable[Crop]) -> None:
        for each in crops:
            network.parse(each.pixels[None])

    crops = crop()
    steps = {
        "detect": lambda: [detector.detect(image) for image in images],
        "crop": crop,
        "parse": lambda: parse(crops),
        "whole": lambda: parse(crop_image(image, network.checkpoint) for image in images),
    }
    found = paired({step: timed(work, len(images)) for step, work in steps.items()}, int(rounds))
    told = ", ".join(f"{step} {1000 * found.median(step):.0f} ms" for step in steps)
    ratio = 1 / found.ratio("whole", "detect", "crop", "parse")
    print(f"{checkpoint}, {len(images)} images with one face: {told}; ratio {ratio:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
