"""Masks: 8-bit grey PNG, where the value of a pixel is its class id, and their place in the image.

zlib looks for runs alone (Z_RLE), because masks consist of runs; noise, as untrained weights give it, would be larger
that way and gets zlib's default.  Bytes and ms of a mask, Pillow 13.0, one core (medians; means of six masks a kind):

    zlib's strategy      demo-synthetic, 192    its truth, 512    untrained, 512
    Z_RLE                  1,731   0.33           3,474   1.5      136,482   4.8
    default, level 6       1,907   0.75           3,826   2.7       21,866   7.9
    default, level 4       2,001   0.49           4,017   2.4       25,553   4.4
    default, level 1       2,499   0.34           5,774   1.5       32,654   3.3
"""

from __future__ import annotations

import zlib
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

#: A mask that takes more than a bit per pixel counts as noise.
_PIXELS_PER_BYTE = 8


def encode(mask: np.ndarray) -> bytes:
    """(H, W) uint8 class ids -> PNG."""
    png = _png(mask, compress_type=zlib.Z_RLE)
    return png if len(png) * _PIXELS_PER_BYTE <= mask.size else _png(mask)


def _png(mask: np.ndarray, **options: Any) -> bytes:
    sink = BytesIO()
    Image.fromarray(mask).save(sink, format="PNG", **options)
    return sink.getvalue()


def decode(png: bytes) -> np.ndarray:
    """PNG -> (H, W) uint8 class ids."""
    with Image.open(BytesIO(png), formats=("PNG",)) as image:
        return np.asarray(image)


#: The label of pixels that the crop does not cover, until the mask is encoded; no class table is so long.
OUTSIDE = 255


def paste(
    mask: np.ndarray, transform: np.ndarray, width: int, height: int, outside: int = OUTSIDE
) -> tuple[np.ndarray, tuple[int, int]]:
    """A mask (h, w) of uint8 class ids and its transform (2, 3) -> the mask in pixels of the image, (H, W) uint8, and
    its left and top edge there.

    It is the smallest upright rectangle with all that the mask covers of the image of `width` x `height` pixels.  A
    pixel gets the class at its middle, `outside` where that is beyond the mask.  The mask must overlap the image.
    """
    across, down = mask.shape[1], mask.shape[0]
    corners = transform @ np.array([[0, across, 0, across], [0, 0, down, down], [1, 1, 1, 1]])
    # A corner that is on the edge of a pixel but for rounding must not add a pixel.
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
        fillcolor=outside,
    )
    return np.array(pasted), (left, top)
