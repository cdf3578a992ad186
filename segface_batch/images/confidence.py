"""How sure a network is of a mask.

The score of a pixel is the network's softmax (temperature 1) over the K classes: its best probability, its margin (the
best less the second) and its entropy.  They are reduced to sums where the network runs, and few numbers leave it.

H, W: height and width of the mask in pixels; K: classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from segface_batch.catalog import BACKGROUND

#: A pixel whose margin is smaller is one that the network could as well have given to another class.
LOW_MARGIN = 0.2


@dataclass(frozen=True)
class Confidence:
    """Of one mask: `best` and `margin` (K,) float64 are means over the pixels of a class, NaN where it has none;
    `overall` is the mean best probability of all pixels that are not background, NaN where there is none; `low_px` the
    pixels with a margin under LOW_MARGIN; `entropy` the mean entropy of all pixels over ln K.

    `margins` (H, W) uint8 has the margin of each pixel times 255, rounded; None where it was not asked for.
    """

    best: np.ndarray
    margin: np.ndarray
    overall: float
    low_px: int
    entropy: float
    margins: np.ndarray | None = None


def of_pixels(labels: np.ndarray, scores: np.ndarray, n_classes: int, *, keep: bool = False) -> Confidence:
    """From labels (H, W) uint8 and scores (3, H, W) float32 of every pixel: best probability, margin, entropy in nats.
    `keep` the margins."""
    of_classes = [np.bincount(labels.ravel(), score.ravel(), n_classes) for score in scores[:2]]
    low, entropy = np.count_nonzero(scores[1] < LOW_MARGIN), scores[2].sum(dtype=np.float64)
    pixels = np.bincount(labels.ravel(), minlength=n_classes)
    return of_sums(pixels, np.concatenate([*of_classes, [low, entropy]]), as_grey(scores[1]) if keep else None)


def as_grey(margins: np.ndarray) -> np.ndarray:
    """Margins from 0 to 1 -> uint8."""
    return np.rint(margins * 255).astype(np.uint8)


def of_sums(pixels: np.ndarray, sums: np.ndarray, margins: np.ndarray | None = None) -> Confidence:
    """From `pixels` (K,) of each class and `sums` (2K + 2,): of the best probability of each class's pixels, of their
    margins, the number of low margins, and the entropy of all pixels in nats."""
    (best, margin), (low, entropy) = sums[:-2].reshape(2, -1), sums[-2:]
    seen = np.where(pixels > 0, pixels, np.nan)
    others = np.arange(len(pixels)) != BACKGROUND
    face = int(pixels[others].sum())
    overall = float(best[others].sum()) / face if face else math.nan
    mean_entropy = float(entropy) / int(pixels.sum()) / math.log(len(pixels))
    return Confidence(best / seen, margin / seen, overall, int(low), mean_entropy, margins)
