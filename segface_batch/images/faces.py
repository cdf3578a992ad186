"""The faces that a detector finds in an image: boxes, scores and five landmarks each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Faces:
    """N faces in pixels of the upright image, float32.

    `boxes` (N, 4): left, top, right, bottom; `scores` (N,): 0 to 1; `landmarks` (N, 5, 2): (x, y) of the eyes, the nose
    tip and the mouth corners, left before right as seen.  Boxes may reach beyond the image.
    """

    boxes: np.ndarray
    scores: np.ndarray
    landmarks: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    def at(self, which: np.ndarray) -> Faces:
        """Some of the faces, by index or mask."""
        return Faces(self.boxes[which], self.scores[which], self.landmarks[which])

    def largest(self, most: int | None = None) -> Faces:
        """At most `most` faces, the largest box first; boxes of equal area from left to right."""
        width, height = self.boxes[:, 2] - self.boxes[:, 0], self.boxes[:, 3] - self.boxes[:, 1]
        return self.at(np.lexsort((self.boxes[:, 1], self.boxes[:, 0], -width * height))[:most])


class Detector(Protocol):
    """Finds faces in photographs: model.mtcnn.Mtcnn and model.yunet.YuNet."""

    def detect(self, image: Image.Image) -> Faces:
        """An upright RGB image -> its faces, the largest first."""
        ...


NO_FACES = Faces(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty((0, 5, 2), np.float32))
