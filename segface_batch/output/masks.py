"""Masks as 8-bit grey PNG: the value of a pixel is its class id, and every reader of pictures opens it."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image


def encode(mask: np.ndarray) -> bytes:
    """(H, W) uint8 class ids -> PNG."""
    sink = BytesIO()
    Image.fromarray(mask).save(sink, format="PNG")
    return sink.getvalue()


def decode(png: bytes) -> np.ndarray:
    """PNG -> (H, W) uint8 class ids."""
    with Image.open(BytesIO(png), formats=("PNG",)) as image:
        return np.asarray(image)
