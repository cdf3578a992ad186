"""Masks that exist, as files of class ids: read for `measure`.

H, W: height and width of a mask in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO

import numpy as np
from PIL import Image

from segface_batch.catalog import Dataset
from segface_batch.errors import ImageError
from segface_batch.images import masks

#: Modes whose pixels are ids: grey, indices of a palette, and one bit.
_MODES = ("L", "P", "1")


def read(data: bytes, n_classes: int, max_pixels: int) -> np.ndarray:
    """An encoded image -> (H, W) uint8 class ids; `masks.OUTSIDE` where a pixel is to be ignored.

    ImageError `bad_labels` for an image that has other things than ids below `n_classes` and 255.
    """
    labels = _grey(data, max_pixels)
    known = (labels < n_classes) | (labels == masks.OUTSIDE)
    if not known.all():
        raise ImageError("bad_labels")
    return labels


def painted(parts: Mapping[str, bytes], dataset: Dataset, max_pixels: int) -> np.ndarray:
    """The part masks of one face, encoded images by class name, whose nonzero pixels are the class's -> (H, W) uint8.

    They are painted in the order of the ids, later ones over earlier ones, as SegFace's loader paints those of
    CelebAMask-HQ (github.com/Kartik-3004/SegFace, commit 9416628, `datasets/celebamask_hq.py`).
    """
    labels: np.ndarray | None = None
    for label, name in enumerate(dataset.class_names):
        if name in parts:
            part = _grey(parts[name], max_pixels)
            labels = np.zeros_like(part) if labels is None else labels
            if part.shape != labels.shape:
                raise ImageError("bad_labels")
            labels[part > 0] = label
    if labels is None:
        raise ImageError("bad_labels")
    return labels


def _grey(data: bytes, max_pixels: int) -> np.ndarray:
    if not data:
        raise ImageError("empty")
    try:
        with Image.open(BytesIO(data)) as image:
            if image.width * image.height > max_pixels:
                raise ImageError("too_large")
            if image.format == "JPEG":
                raise ImageError("bad_labels")
            if image.mode in ("RGB", "RGBA"):  # CelebAMask-HQ's part masks: grey, said three times
                pixels = np.asarray(image)
                if not (pixels[..., :1] == pixels[..., 1:3]).all():
                    raise ImageError("bad_labels")
                return pixels[..., 0].copy()
            if image.mode not in _MODES:
                raise ImageError("bad_labels")
            return np.array(image, np.uint8)
    except ImageError:
        raise
    except Exception as error:  # whatever a damaged file makes Pillow raise
        raise ImageError("unreadable") from error
