"""`FaceParser`: a SegFace checkpoint as a plain object, and as the function of a Ray Data `map_batches`.

B: images; R: the checkpoint's resolution in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from segface_batch import catalog
from segface_batch.images import statistics
from segface_batch.images.crop import crop_image
from segface_batch.model.network import Network
from segface_batch.model.segface_network import SegFaceNetwork


class FaceParser:
    """Face images -> class ids per pixel; the arguments are those of `SegFaceNetwork`."""

    def __init__(self, checkpoint: str = catalog.DEFAULT_CHECKPOINT, **settings: Any) -> None:
        self.network: Network = SegFaceNetwork(checkpoint, **settings)
        self.checkpoint = self.network.checkpoint

    def parse(
        self, images: Iterable[np.ndarray | Image.Image], landmarks: Sequence[np.ndarray] | None = None
    ) -> np.ndarray:
        """RGB images of any sizes, (H, W, 3) uint8 or Pillow -> (B, R, R) uint8 class ids.

        A mask covers its whole image (Helen: the square around the landmarks), scaled to R x R.  LaPa and Helen
        need `landmarks`, (N, 2) points in pixels of each image; CropError where they are missing or wrong.
        """
        opened = [image if isinstance(image, Image.Image) else Image.fromarray(image) for image in images]
        points = [None] * len(opened) if landmarks is None else landmarks
        crops = [crop_image(i.convert("RGB"), self.checkpoint, p) for i, p in zip(opened, points, strict=True)]
        side = self.checkpoint.resolution
        pixels = np.stack([crop.pixels for crop in crops]) if crops else np.empty((0, side, side, 3), np.uint8)
        fives = [crop.landmarks for crop in crops if crop.landmarks is not None]
        return self.network.parse(pixels, np.stack(fives) if fives else None).labels

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A Ray Data batch with a column `image` -> the same with `mask` (B, R, R) and the columns of all statistics.

        Checkpoints that need landmarks take them from the column `landmarks` (B, N, 2).
        """
        points = batch.get("landmarks") if self.checkpoint.dataset.landmarks else None
        masks = self.parse(batch["image"], None if points is None else list(points))
        return {**batch, "mask": masks, **statistics.columns(list(masks), self.checkpoint.dataset.class_names)}
