"""What a unit is inside a worker: images that were fetched, and the faces in them.  Plain objects, no Arrow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from segface_batch.images.confidence import Confidence
from segface_batch.images.crop import Crop
from segface_batch.inputs.image import SourceImage


@dataclass(frozen=True)
class FetchedImage:
    """A planned image and its encoded bytes, or a word of `errors.ERRORS` that says why there are none.

    `carried` are the values of the inputs' columns that `stats` repeats, by name.
    """

    unit: int
    seq: int
    source: SourceImage
    carried: Mapping[str, Any]
    data: bytes | None = None
    error: str | None = None


@dataclass(frozen=True)
class Pasted:
    """A mask in pixels of the upright image: `labels` (H, W) uint8 class ids, `masks.OUTSIDE` where the crop does not
    reach; `margins` (H, W) uint8 as in `Confidence`; `transform` (2, 3) takes them to the image."""

    labels: np.ndarray
    margins: np.ndarray | None
    transform: np.ndarray


@dataclass(frozen=True)
class Face:
    """A face of an image, or an image without any: the only shape of a row.

    `size` is (width, height) of the upright image in pixels, None where it was not decoded.  `labels` (R, R) uint8 are
    the network's class ids, which `crop.transform` takes to the image, and `confidence` is the network's; `pasted` is
    the mask to store where that is another.  Without `labels`, `error` says why, or there is no face.
    """

    image: FetchedImage
    size: tuple[int, int] | None = None
    n_faces: int = 0
    index: int = 0
    crop: Crop | None = None
    labels: np.ndarray | None = None
    confidence: Confidence | None = None
    pasted: Pasted | None = None
    error: str | None = None
