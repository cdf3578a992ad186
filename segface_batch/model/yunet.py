"""YuNet through OpenCV (extra `yunet`): the other face detector, on the CPU.

Wu, Peng, Yu 2023, "YuNet: A Tiny Millisecond-level Face Detector" (Machine Intelligence Research 20); the weights are
OpenCV's (huggingface.co/opencv/face_detection_yunet, MIT), fetched into the Hugging Face cache.
"""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from segface_batch.images.faces import NO_FACES, Faces
from segface_batch.model import weights

REPOSITORY, FILE = "opencv/face_detection_yunet", "face_detection_yunet_2023mar.onnx"
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"

#: It finds faces from about ten pixels on: images are scaled down until `min_face` is that.
_SMALLEST = 10

#: Boxes that overlap a better one by more are the same face (OpenCV's value).
_OVERLAP = 0.3


class YuNet:
    """Faces whose boxes are at least `min_face` pixels high or wide, found with a score of at least `min_score`."""

    def __init__(self, *, min_face: int = 40, min_score: float = 0.95) -> None:
        self.min_face, self.min_score = min_face, min_score
        self.path = str(fetch())
        cv2.setNumThreads(1)  # several images are looked at side by side
        self._own = threading.local()

    def detect(self, image: Image.Image) -> Faces:
        """An upright RGB image -> its faces, the largest first."""
        scale = min(1.0, _SMALLEST / self.min_face)
        size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        small = image.resize(size, Image.Resampling.BOX) if size != image.size else image
        found = self._net(size).detect(np.ascontiguousarray(np.asarray(small)[..., ::-1]))[1]
        if found is None:
            return NO_FACES
        grown = np.array([image.width / size[0], image.height / size[1]], np.float32)
        corners, points = found[:, :4].reshape(-1, 2, 2), found[:, 4:14].reshape(-1, 5, 2)
        corners[:, 1] += corners[:, 0]  # from width and height
        faces = Faces((corners * grown).reshape(-1, 4), found[:, 14], points * grown)
        return faces.at((faces.boxes[:, 2:] - faces.boxes[:, :2]).max(axis=1) >= self.min_face).largest()

    def _net(self, size: tuple[int, int]) -> cv2.FaceDetectorYN:
        """A net for images of a size; each thread has its own, which remembers the size."""
        if not hasattr(self._own, "net"):
            self._own.net = cv2.FaceDetectorYN.create(self.path, "", size, self.min_score, _OVERLAP)
        self._own.net.setInputSize(size)
        return self._own.net


def fetch() -> Path:
    """The file of the weights, fetched if need be; OSError where there is none, ValueError where it is another."""
    hint = "point HF_HOME at a cache that holds it, or use --detector mtcnn, which comes with the package"
    path = weights.from_hub(REPOSITORY, FILE, None, hint)
    weights.verify(path, SHA256)
    return path
