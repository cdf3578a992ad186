"""A mask laid back into its picture: what the frame covers of it, pixel by pixel of the upright original."""

from __future__ import annotations

import numpy as np
from PIL import Image

#: Class id of pixels that the frame does not cover, while they are counted; no table has so many classes.
OUTSIDE = 255


def paste(mask: np.ndarray, transform: np.ndarray, width: int, height: int) -> tuple[np.ndarray, tuple[int, int]]:
    """(R, R) uint8 class ids and their transform (2, 3) -> the smallest upright rectangle of the picture of `width` x
    `height` pixels that holds all of the frame in it, (H, W) uint8, and its left and top edge.

    A pixel takes the class at its middle, OUTSIDE where that is beyond the frame.  The frame must touch the picture.
    """
    side = mask.shape[0]
    corners = transform @ np.array([[0, side, 0, side], [0, 0, side, side], [1, 1, 1, 1]])
    # A corner that lies on the edge of a pixel but for rounding ends there.
    low, high = np.floor(corners.min(axis=1) + 1e-6), np.ceil(corners.max(axis=1) - 1e-6)
    left, top = np.maximum(low, 0).astype(int).tolist()
    right, bottom = np.minimum(high, (width, height)).astype(int).tolist()
    back = np.linalg.inv(transform[:, :2])
    shift = back @ (np.array([left, top]) - transform[:, 2])
    pasted = Image.fromarray(mask).transform(
        (right - left, bottom - top),
        Image.Transform.AFFINE,
        (*back[0], shift[0], *back[1], shift[1]),
        Image.Resampling.NEAREST,
        fillcolor=OUTSIDE,
    )
    return np.array(pasted), (left, top)
