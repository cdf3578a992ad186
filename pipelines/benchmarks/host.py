"""What does a JPEG of 1024 pixels cost the host, in CPU ms by step; what do `--decode near` and `fast` do to masks?

    python -m pipelines.benchmarks.host [FOLDER [ROUNDS]]

FOLDER is written by `python -m pipelines.demo_model.render FOLDER --size 1024 --faces 24 --first-seed 2000000`; without
it the same faces come enlarged from 256 pixels.  Crops and masks of 512 pixels, one thread.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipelines.benchmarks import corpus
from pipelines.benchmarks.rounds import paired, timed
from segface_batch import catalog
from segface_batch.curate.evaluate import counted_pairs, f1
from segface_batch.images import DEFAULT_MAX_PIXELS, masks, statistics
from segface_batch.images.crop import crop_image, crop_whole
from segface_batch.images.decode import decode, decode_reduced
from segface_batch.images.measures import CroppedFace
from segface_batch.images.shapes import Shapes
from segface_batch.model.segface_network import SegFaceNetwork

ROUNDS, LARGE = 9, catalog.find("mobilenet_celeba_512")

#: The columns that `CroppedFace` gives, and those that `Shapes` does.
MEASURES = [each.name for each in statistics.STATISTICS if hasattr(CroppedFace, each.name)]
SHAPES = ("left", "top", "right", "bottom", "x", "y", "components", "largest", "sides")


def obvious(jpeg: bytes) -> np.ndarray:
    """The usual way to prepare an image for a network."""
    image = Image.open(io.BytesIO(jpeg)).convert("RGB").resize((512, 512), Image.Resampling.BICUBIC)
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
    return (np.asarray(image, np.float32) / 255 - mean) / std


def main(folder: str = "", rounds: str = str(ROUNDS)) -> None:
    images, truth = corpus.RENDERED, corpus.TRUE_MASKS
    if folder:
        images, truth = (sorted((Path(folder) / kind).iterdir()) for kind in ("images", "labels"))
    jpegs = corpus.enlarged(images)
    print_steps(jpegs[0], corpus.labels(truth[0], LARGE.resolution), int(rounds))
    print_agreement(jpegs, truth)


def print_steps(jpeg: bytes, mask: np.ndarray, rounds: int) -> None:
    limit, classes = DEFAULT_MAX_PIXELS, len(LARGE.dataset.classes)
    image = decode(jpeg, limit)
    crop = crop_image(image, LARGE)

    def measure(thing: object, names: Iterable[str]) -> list[Any]:
        return [getattr(thing, name) for name in names]

    def face() -> CroppedFace:  # made anew each time: it keeps what was measured
        return CroppedFace(mask, LARGE.dataset, crop.transform, image.size, crop.pixels)

    steps = {
        "decode": lambda: decode(jpeg, limit),
        "decode and crop, exact": lambda: crop_image(decode(jpeg, limit), LARGE),
        "decode and crop, near": lambda: crop_image(decode(jpeg, limit), LARGE, near=True),
        "decode and crop, fast": lambda: crop_whole(*decode_reduced(jpeg, limit, LARGE.resolution), LARGE),
        "  obvious: open, convert, resize, normalise": lambda: obvious(jpeg),
        "statistics": lambda: statistics.measured(statistics.Mask(mask, face())),
        "  shapes alone": lambda: measure(Shapes(mask, classes), SHAPES),
        "  measures alone": lambda: measure(face(), MEASURES),
        "  obvious: a sum for each class": lambda: [(mask == index).sum() for index in range(classes)],
        "PNG": lambda: masks.encode(mask),
        "  obvious: save": lambda: Image.fromarray(mask).save(io.BytesIO(), "PNG"),
    }
    found = paired({step: timed(work, clock=time.thread_time) for step, work in steps.items()}, rounds)
    for step in steps:
        print(f"{1000 * found.median(step):7.2f} ms  {step}")


def print_agreement(jpegs: list[bytes], truth: list[Path]) -> None:
    """What near and fast crops do to the masks of the small embedded model, and to their F1."""
    network, limit = SegFaceNetwork("demo-synthetic", device="cpu", threads=1), DEFAULT_MAX_PIXELS
    small = network.checkpoint
    side, classes = small.resolution, len(small.dataset.classes)
    crops = {
        "exact": [crop_image(decode(each, limit), small) for each in jpegs],
        "near": [crop_image(decode(each, limit), small, near=True) for each in jpegs],
        "fast": [crop_whole(*decode_reduced(each, limit, side), small) for each in jpegs],
    }
    found = {name: network.parse(np.stack([crop.pixels for crop in each])).labels for name, each in crops.items()}
    true = np.stack([corpus.labels(file, side) for file in truth])
    scores = {name: np.nanmean(f1(counted_pairs(true, labels, classes))) for name, labels in found.items()}
    for name in ("near", "fast"):
        same = (found["exact"] == found[name]).mean()
        print(
            f"{name}: {same:.3%} of the pixels as exact; mean F1 {scores['exact']:.4f} exact, {scores[name]:.4f} {name}"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
