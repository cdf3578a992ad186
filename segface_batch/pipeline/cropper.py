"""From encoded bytes to crops: an image is decoded, its faces are found where they must be, and each is cropped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, islice
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from segface_batch.catalog import Checkpoint
from segface_batch.errors import ImageError
from segface_batch.images.crop import Crop, crop_faces, crop_given, crop_image, crop_whole, given_box
from segface_batch.images.decode import decode, decode_reduced
from segface_batch.images.faces import Detector, Faces
from segface_batch.job import Job
from segface_batch.output.face import Face, FetchedImage
from segface_batch.pipeline.fatal import fatal
from segface_batch.pipeline.metrics import Clock

if TYPE_CHECKING:
    from segface_batch.model.mtcnn import Mtcnn

#: Faces of an image that are cropped before the network asks for them.  The others of a crowd are cropped when it does:
#: a crop of 512 x 512 takes 0.8 MB, and a crowd may have a thousand.
CROPPED_AHEAD = 16


@dataclass(frozen=True)
class Decoded:
    """An image on its way to the network: its faces, cropped as they are asked for (a word of `errors.ERRORS` for one
    that cannot be), or the error of the image.  `labels` are those of its only face, where they are known already."""

    image: FetchedImage
    size: tuple[int, int] | None = None
    crops: Iterable[Crop | str] = ()
    n_faces: int = 0
    error: str | None = None
    labels: np.ndarray | None = None

    def faces(self) -> Iterator[Face]:
        """Each face; an image without any gives one without a crop."""
        face = Face(self.image, self.size, self.n_faces, error=self.error)
        if not self.n_faces:
            yield face
        for index, crop in enumerate(self.crops):
            if isinstance(crop, str):
                yield replace(face, index=index, error=crop)
            else:
                yield replace(face, index=index, crop=crop, labels=self.labels)


class Cropper:
    """Decodes and crops as a job says; many threads may call it."""

    def __init__(self, job: Job, checkpoint: Checkpoint, device: str) -> None:
        self.job, self.checkpoint, self.device = job, checkpoint, device
        self._loading = Lock()  # threads ask for a detector at the same time, and one shall load it

    def decoded(self, image: FetchedImage, clock: Clock) -> Decoded:
        """The image and its crops, or its error."""
        if image.data is None:
            return Decoded(image, error=image.error)
        with fatal(f"decoding or cropping {image.source.image_id} failed"):
            return self._decoded(image, image.data, clock)

    def _decoded(self, image: FetchedImage, data: bytes, clock: Clock) -> Decoded:
        try:
            with clock.of("decode"):
                pixels, width, height = self._decode(data)
        except ImageError as error:
            return Decoded(image, error=str(error))
        try:
            return self._cropped(image, pixels, (width, height), clock)
        except ImageError as error:
            return Decoded(image, (width, height), error=str(error))

    def _decode(self, data: bytes) -> tuple[Image.Image, int, int]:
        """The upright image, maybe at another scale, and its true width and height."""
        if self.job.decode == "fast":
            return decode_reduced(data, self.job.max_pixels, self.checkpoint.resolution)
        image = decode(data, self.job.max_pixels)
        return image, image.width, image.height

    def _cropped(self, image: FetchedImage, pixels: Image.Image, size: tuple[int, int], clock: Clock) -> Decoded:
        job, checkpoint, points = self.job, self.checkpoint, image.source.landmarks
        landmarks = None if points is None else np.array(points, np.float32).reshape(-1, 2)
        if job.faces == "detect" or (job.faces == "given" and landmarks is not None and len(landmarks) == 2):
            with clock.of("detect"):
                faces = self._faces(pixels, landmarks)
            crops = crop_faces(pixels, checkpoint, faces)
            with clock.of("decode"):
                ready = list(islice(crops, CROPPED_AHEAD))
            return Decoded(image, size, chain(ready, crops), len(faces))
        with clock.of("decode"):
            if job.decode == "fast":
                crop = crop_whole(pixels, *size, checkpoint, landmarks)
            elif job.faces == "given":
                crop = crop_given(pixels, checkpoint, landmarks)
            else:
                crop = crop_image(pixels, checkpoint, landmarks, near=job.decode == "near")
        return Decoded(image, size, (crop,), 1)

    def _faces(self, image: Image.Image, corners: np.ndarray | None) -> Faces:
        """The faces of a photograph, or the one in a given box (2, 2)."""
        if self.job.faces == "detect" or corners is None:
            with self._loading:
                detector = self.detector
            return detector.detect(image).largest(self.job.max_faces)
        with self._loading:
            locator = self._locator
        return locator.locate(image, np.array([given_box(corners, image.width, image.height)], np.float32))

    @cached_property
    def detector(self) -> Detector:
        """Finds the faces of a photograph."""
        settings = {"min_face": self.job.min_face, "min_score": self.job.min_score}
        if self.job.detector == "yunet":
            from segface_batch.model.yunet import YuNet

            return YuNet(**settings)
        return self._mtcnn(**settings)

    @cached_property
    def _locator(self) -> Mtcnn:
        """Finds the landmarks of a face whose box is given."""
        return self._mtcnn()

    def _mtcnn(self, **settings: Any) -> Mtcnn:
        from segface_batch.model.mtcnn import Mtcnn

        return Mtcnn(**settings).to(self.device)
