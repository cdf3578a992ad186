"""What faster ways to run a network cost in quality: how far their masks are from those of torch in float32.

B: images; R: side of an image in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segface_batch import catalog
from segface_batch.curate.evaluate import counted_pairs, f1
from segface_batch.demo import FACES, TRUTH
from segface_batch.images.crop import crop_image
from segface_batch.model.face_parser import FaceParser

#: A pixel is safe where its best class leads by more than this: 70 times what float32 moves logits (tests/data).
SAFE_MARGIN = 0.02


@dataclass(frozen=True)
class Mode:
    """A way to run a network, in FaceParser's words."""

    engine: str
    precision: str
    compile: bool = False

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}" + (" compiled" if self.compile else "")

    def parser(self, checkpoint: str, weights: str | None, **settings: Any) -> FaceParser:
        return FaceParser(
            checkpoint,
            weights=weights,
            engine=self.engine,
            precision=self.precision,
            compile=self.compile,
            device="cpu",
            **settings,
        )


EXACT = Mode("torch", "fp32")

#: All others on a CPU; compiling takes minutes.
FASTER = (Mode("openvino", "fp32"), Mode("torch", "bf16"), Mode("openvino", "bf16"), Mode("torch", "fp32", True))


@dataclass(frozen=True)
class Agreement:
    """The share of pixels with the class that torch gives them in float32, of the safe ones and of all."""

    checkpoint: str
    mode: Mode
    safe: float
    all: float


@dataclass(frozen=True)
class Score:
    """Mean F1 of demo-synthetic on the embedded rendered faces, and its change from torch in float32."""

    mode: Mode
    mean_f1: float
    change: float


def agreements(
    checkpoint: str,
    weights: str | None,
    pixels: np.ndarray,
    landmarks: np.ndarray | None = None,
    modes: Sequence[Mode] = FASTER,
) -> Iterator[Agreement]:
    """For cropped images (B, R, R, 3) uint8, with landmarks (B, 5, 2) where the checkpoint needs them."""
    import torch

    from segface_batch.model import warp, weights as files
    from segface_batch.model.fused import Inference

    found = catalog.find(checkpoint)
    network = Inference(files.load(found, files.locate(found, weights)), found.resolution, split=True)
    with torch.inference_mode():
        grids = () if landmarks is None else warp.grids(torch.from_numpy(landmarks), found.resolution)
        best, second = network.logits(torch.from_numpy(pixels), *grids).topk(2, dim=1).values.unbind(1)
    safe = (best - second > SAFE_MARGIN).numpy()
    exact = EXACT.parser(checkpoint, weights).labels(pixels, landmarks)
    for mode in modes:
        same = mode.parser(checkpoint, weights).labels(pixels, landmarks) == exact
        yield Agreement(checkpoint, mode, float(same[safe].mean()), float(same.mean()))


def scores(modes: Sequence[Mode] = FASTER) -> Iterator[Score]:
    """Of demo-synthetic, whose truth comes with the package."""
    exact = _mean_f1(EXACT)
    yield Score(EXACT, exact, 0.0)
    for mode in modes:
        found = _mean_f1(mode)
        yield Score(mode, found, found - exact)


def _mean_f1(mode: Mode) -> float:
    parser = mode.parser(catalog.DEMO_CHECKPOINT, None)
    classes, side = len(parser.checkpoint.dataset.classes), parser.checkpoint.resolution
    confusion = np.zeros((classes, classes), np.int64)
    for file in sorted((FACES / "rendered").glob("*.jpg")):
        with Image.open(file) as image, Image.open(_truth(file)) as labels:
            pixels = crop_image(image.convert("RGB"), parser.checkpoint).pixels
            true = np.asarray(labels.resize((side, side), Image.Resampling.NEAREST))
        confusion += counted_pairs(true, parser.labels(pixels[None])[0], classes)
    return float(np.nanmean(f1(confusion)))


def _truth(file: Path) -> Path:
    return TRUTH / file.relative_to(FACES).with_suffix(".png")


def table(rows: Iterable[Agreement | Score]) -> Iterator[str]:
    """Rows of one kind as lines of a Markdown table."""
    head = None
    for row in rows:
        if head is None:
            head = ("checkpoint", "mode", "safe pixels equal", "all pixels equal")
            if isinstance(row, Score):
                head = ("mode", "mean F1 of demo-synthetic", "change")
            yield f"| {' | '.join(head)} |"
            yield "|---" * len(head) + "|"
        if isinstance(row, Score):
            yield f"| {row.mode} | {row.mean_f1:.4f} | {row.change:+.4f} |"
        else:
            yield f"| {row.checkpoint} | {row.mode} | {row.safe:.5%} | {row.all:.4%} |"
