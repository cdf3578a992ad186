"""Scores of an output's masks against true masks: F1 of each class, as papers on face parsing report it.

Pixels are counted over all images together, at the size of the masks; the truth is sampled at the middle of each
pixel.  K: classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from segface_batch.output.reader import open_output


@dataclass(frozen=True)
class ClassScores:
    """`f1` by class name, in the order of the ids; `right` by image_id: the share of its pixels with the true class."""

    f1: dict[str, float]
    right: dict[str, float]

    @property
    def mean_f1(self) -> float:
        """Over the classes that occur, background included."""
        return float(np.nanmean(list(self.f1.values())))


def evaluate(out: str, truth: Path) -> ClassScores:
    """Score the masks of `out` by the label maps in the folder `truth`, for the images that have one there.

    The truth of the image `a/b.jpg` is `truth/a/b.png`, 8-bit class ids of the same crop.  ValueError where no
    image has a truth.
    """
    output = open_output(out)
    if output.settings.get("faces", "whole") != "whole":
        raise ValueError(f"the masks of '{out}' are those of faces, not of whole images; evaluate one of ready crops")
    classes, right = len(output.classes), {}
    confusion = np.zeros((classes, classes), np.int64)
    for face in output.faces(columns=()):
        file = truth / Path(face.row["image_id"]).with_suffix(".png")
        if not file.is_file():
            continue
        found = face.mask
        with Image.open(file) as labels:
            true = np.asarray(labels.resize(found.shape[::-1], Image.Resampling.NEAREST))
        pairs = counted_pairs(true, found, classes)
        if pairs.any():
            right[face.row["image_id"]] = float(pairs.trace() / pairs.sum())
            confusion += pairs
    if not right:
        raise ValueError(f"no image of '{out}' has a truth in '{truth}'; truth/a/b.png belongs to the image a/b.jpg")
    names = [face_class.name for face_class in output.classes]
    return ClassScores(dict(zip(names, map(float, f1(confusion)), strict=True)), right)


def counted_pairs(truth: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    """Two label maps of the same shape -> (K, K) int64: pixels by true class (row) and found class (column).

    Pixels without a class on either side, such as the 255 of many data sets, do not count.
    """
    known = (truth < classes) & (found < classes)
    pairs = truth[known].astype(np.int64) * classes + found[known]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def f1(confusion: np.ndarray) -> np.ndarray:
    """(K, K) counted pairs -> (K,) F1 from 0 to 1: 2 hits / (true + found); NaN for a class that is in neither."""
    both = confusion.sum(axis=0) + confusion.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return 2 * confusion.diagonal() / both
