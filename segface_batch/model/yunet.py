"""YuNet: the second face detector, through OpenCV (extra `yunet`), on the CPU.

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

#: It finds faces from about ten pixels on: images are scaled down until `min_face` is ten pixels.
_SMALLEST = 10

#: Non-maximum suppression: overlap (IoU) of boxes above which the lower score goes (OpenCV's value).
_MAX_OVERLAP = 0.3


class YuNet:
    """Faces whose boxes are at least `min_face` pixels high or wide, found with a score of at least `min_score`."""

    def __init__(self, *, min_face: int = 40, min_score: float = 0.95) -> None:
        self.min_face, self.min_score = min_face, min_score
        self.path = str(fetch())
        cv2.setNumThreads(1)  # threads detect in several images side by side
        self._per_thread = threading.local()

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
        """The thread's net, set to images of a (width, height), which it keeps: threads cannot share one."""
        if not hasattr(self._per_thread, "net"):
            self._per_thread.net = cv2.FaceDetectorYN.create(self.path, "", size, self.min_score, _MAX_OVERLAP)
        self._per_thread.net.setInputSize(size)
        return self._per_thread.net


def fetch() -> Path:
    """The file of the weights in the Hugging Face cache, fetched where it is not there.

    OSError, with a hint, where that fails; ValueError for another file.
    """
    hint = "point HF_HOME at a cache that holds it, or use --detector mtcnn, which comes with the package"
    path = weights.from_hub(REPOSITORY, FILE, None, hint)
    weights.verify(path, SHA256)
    return path
