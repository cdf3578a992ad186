"""What the host does with a JPEG of 1024 px, in CPU ms by step, and what `--decode near` and `fast` do to masks.

    python pipelines/measure_host.py [FOLDER]

FOLDER is written by `python -m pipelines.demo_model.render FOLDER --size 1024 --faces 24 --first-seed 2000000`; without
it the same faces come enlarged from 256 px.  Crops and masks of 512 px, one thread; medians of interleaved rounds.
"""

from __future__ import annotations

import io
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from segface_batch import FaceParser, catalog
from segface_batch.curate.evaluate import counted_pairs, f1
from segface_batch.demo import FACES, TRUTH
from segface_batch.images import masks, statistics as counts
from segface_batch.images.crop import crop_image, crop_whole
from segface_batch.images.decode import decode, decode_reduced

ROUNDS, LIMIT, LARGE, BICUBIC = 9, 10**8, catalog.find("mobilenet_celeba_512"), Image.Resampling.BICUBIC


def obvious(jpeg: bytes) -> np.ndarray:
    pixels = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB").resize((512, 512), BICUBIC), np.float32)
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
    return (pixels / 255 - mean) / std


def main(images: Path = FACES / "rendered", labels: Path = TRUTH / "rendered") -> None:
    jpegs, parser = [], FaceParser("demo-synthetic", device="cpu", threads=1)
    for file in sorted(images.iterdir()):
        Image.open(file).resize((1024, 1024), BICUBIC).save(sink := io.BytesIO(), "JPEG", quality=90)
        jpegs.append(sink.getvalue())
    truth = [Image.open(file) for file in sorted(labels.iterdir())]
    mask, jpeg = np.asarray(truth[0].resize((512, 512), Image.Resampling.NEAREST)), jpegs[0]
    steps = {
        "decode": lambda: decode(jpeg, LIMIT),
        "decode and crop, exact": lambda: crop_image(decode(jpeg, LIMIT), LARGE),
        "decode and crop, near": lambda: crop_image(decode(jpeg, LIMIT), LARGE, near=True),
        "decode and crop, fast": lambda: crop_whole(*decode_reduced(jpeg, LIMIT, 512), LARGE),
        "  obvious: open, convert, resize, normalise": lambda: obvious(jpeg),
        "statistics": lambda: counts.class_pixels(mask, 19),
        "  obvious: a sum for each class": lambda: [(mask == index).sum() for index in range(19)],
        "PNG": lambda: masks.encode(mask),
        "  obvious: save": lambda: Image.fromarray(mask).save(io.BytesIO(), "PNG"),
    }
    spent: dict[str, list[float]] = {step: [] for step in steps}
    for step, work in list(steps.items()) * (ROUNDS + 1):
        started = time.thread_time()
        work()
        spent[step].append(time.thread_time() - started)
    for step, seconds in spent.items():
        print(f"{statistics.median(seconds[1:]) * 1000:7.2f} ms  {step}")
    side, small = parser.checkpoint.resolution, parser.checkpoint
    exact = parser.labels(np.stack([crop_image(decode(each, LIMIT), small).pixels for each in jpegs]))
    near = parser.labels(np.stack([crop_image(decode(each, LIMIT), small, near=True).pixels for each in jpegs]))
    fast = parser.labels(np.stack([crop_whole(*decode_reduced(each, LIMIT, side), small).pixels for each in jpegs]))
    true = np.stack([np.asarray(each.resize((side, side), Image.Resampling.NEAREST)) for each in truth])
    for name, found in (("near", near), ("fast", fast)):
        before, after = (np.nanmean(f1(counted_pairs(true, each, 19))) for each in (exact, found))
        same = (exact == found).mean()
        print(f"{name}: {same:.3%} of the pixels as exact; mean F1 {before:.4f} exact, {after:.4f} {name}")


if __name__ == "__main__":
    main(*(Path(folder) / kind for folder in sys.argv[1:] for kind in ("images", "labels")))
