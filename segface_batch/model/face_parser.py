"""`FaceParser`: a SegFace checkpoint as a plain object, and as the function of a Ray Data `map_batches`.

Both decode and crop as `annotate` does, so that an image has the same mask through every door.

B: images; H, W: height and width of an image; R: the checkpoint's resolution in pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence, Sized
from itertools import islice, repeat
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from segface_batch import catalog, storage
from segface_batch.errors import ERRORS, ImageError
from segface_batch.images import DEFAULT_MAX_PIXELS, masks, statistics
from segface_batch.images.crop import Crop, CropError, crop_image, stacked
from segface_batch.images.decode import decode, to_rgb
from segface_batch.images.measures import CroppedFace
from segface_batch.images.statistics import Mask
from segface_batch.model.network import Network, Parsed
from segface_batch.model.segface_network import SegFaceNetwork

#: A path or URL, encoded bytes, pixels of Pillow, or an array as `_as_pillow` takes it.
AnyImage = str | os.PathLike | bytes | bytearray | memoryview | Image.Image | np.ndarray

#: A crop, and the width and height of its image.
_Cropped = tuple[Crop, tuple[int, int]]


class FaceParser:
    """Face images -> class ids per pixel.

    An image of more than `max_pixels` pixels is refused; the other arguments are those of `SegFaceNetwork`.
    """

    def __init__(
        self, checkpoint: str = catalog.DEFAULT_CHECKPOINT, *, max_pixels: int = DEFAULT_MAX_PIXELS, **settings: Any
    ) -> None:
        self.network: Network = SegFaceNetwork(checkpoint, **settings)
        self.checkpoint = self.network.checkpoint
        self.max_pixels = max_pixels

    def parse(self, images: Iterable[AnyImage], landmarks: Sequence[Any] | np.ndarray | None = None) -> np.ndarray:
        """Images of any sizes -> (B, R, R) uint8 class ids.

        An image is a path, a URL, encoded bytes, a Pillow image, or an array: (H, W, 3) uint8 RGB, (H, W, 4) uint8
        RGBA, (H, W) or (H, W, 1) grey, uint8 or uint16.  Each is decoded when its turn comes; a generator may give any
        number.  A mask covers its whole upright image (Helen: the square around the landmarks), scaled to R x R.
        LaPa and Helen need `landmarks`: for each image (N, 2) points in pixels of the upright image, or None.

        ValueError with the index and a word of `errors.ERRORS` for a broken image or wrong landmarks; ValueError or
        TypeError for what is no image; OSError for a file that cannot be read.
        """
        if isinstance(images, AnyImage) and not (isinstance(images, np.ndarray) and images.ndim in (1, 4)):
            raise TypeError(f"images is one {_said(images)}; give a list, for one image too: parse([image])")
        if landmarks is not None and isinstance(images, Sized) and len(images) != len(landmarks):
            raise ValueError(f"landmarks has {len(landmarks)} entries for {len(images)} images; give each image one")
        side = self.checkpoint.resolution
        labels = [parsed.labels for _, parsed in self._parsed(self._crops(images, landmarks))]
        return np.concatenate([np.empty((0, side, side), np.uint8), *labels])

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """A Ray Data batch with encoded images in the column `bytes`, or else arrays in `image` -> the same with
        `mask` (B, R, R), `error` and the columns of all statistics.

        An image that has no mask has its word of `errors.ERRORS` in `error`, nulls in the statistics, and a mask of
        `masks.OUTSIDE` only.  Checkpoints that need landmarks take them from the column `landmarks`.
        """
        if not isinstance(batch, dict):
            raise TypeError(f"the batch is a {_said(batch)}; leave out batch_format, so that it is a dict of arrays")
        needed = ["bytes" if "bytes" in batch else "image"] + ["landmarks"] * bool(self.checkpoint.dataset.landmarks)
        for column in needed:
            if column not in batch:
                raise ValueError(
                    f"{self.checkpoint.name} needs the column {column!r}, and the batch has {', '.join(batch)}; give "
                    "encoded images in 'bytes' or RGB arrays in 'image', and 'landmarks' for LaPa and Helen"
                )
        errors: list[str | None] = []
        batches = self._parsed(self._crops(*(batch[column] for column in needed), errors=errors))
        measured = [
            (mask.labels, statistics.measured(mask)) for crops, parsed in batches for mask in self._masks(crops, parsed)
        ]
        ready = iter(measured)
        found = [None if error else next(ready) for error in errors]
        side = self.checkpoint.resolution
        mask = np.full((len(found), side, side), masks.OUTSIDE, np.uint8)
        for pixels, each in zip(mask, found, strict=True):
            if each is not None:
                pixels[:] = each[0]
        columns = statistics.columns([each and each[1] for each in found], self.checkpoint.dataset.class_names)
        return {**batch, "mask": mask, "error": pa.array(errors, pa.string()), **columns}

    def _crops(
        self, images: Iterable[Any], landmarks: Iterable[Any] | None = None, errors: list[str | None] | None = None
    ) -> Iterator[_Cropped]:
        """The crop of every image.  One that has none raises ValueError; with `errors`, which gets the word or None of
        every image, it is left out."""
        pairs = zip(images, repeat(None)) if landmarks is None else zip(images, landmarks, strict=True)
        for index, (image, points) in enumerate(pairs):
            try:
                decoded = self._decoded(image, index)
                crop = crop_image(decoded, self.checkpoint, _as_points(points))
            except ImageError as error:
                if errors is None:
                    raise ValueError(f"images[{index}]: {error} ({ERRORS[str(error)]})") from error
                errors.append(str(error))
            else:
                if errors is not None:
                    errors.append(None)
                yield crop, decoded.size

    def _decoded(self, image: Any, index: int) -> Image.Image:
        """Any image -> upright, mode RGB."""
        if isinstance(image, str | os.PathLike):
            image = storage.read(os.fsdecode(image))
        if isinstance(image, bytes | bytearray | memoryview):
            return decode(bytes(image), self.max_pixels)
        if isinstance(image, np.ndarray):
            image = _as_pillow(image, index)
        if isinstance(image, Image.Image):
            return to_rgb(image, self.max_pixels)
        if image is None:
            raise ImageError("missing")
        raise TypeError(
            f"images[{index}] is a {_said(image)}; give a path, a URL, encoded bytes, a Pillow image or a numpy array"
        )

    def _parsed(self, crops: Iterator[_Cropped]) -> Iterator[tuple[list[_Cropped], Parsed]]:
        """Crops, by as many at once as the network takes, and their result."""
        while batch := list(islice(crops, self.network.batch_size)):
            yield batch, self.network.parse(*stacked([crop for crop, _ in batch]))

    def _masks(self, crops: Sequence[_Cropped], parsed: Parsed) -> Iterator[Mask]:
        """What statistics are measured on."""
        for (crop, size), (labels, confidence) in zip(crops, parsed.masks(), strict=True):
            face = CroppedFace(labels, self.checkpoint.dataset, crop.transform, size, crop.pixels)
            yield Mask(labels, face, confidence)


def _as_pillow(array: np.ndarray, index: int) -> Image.Image:
    """An array -> the Pillow image of the same pixels; ValueError for a shape or dtype that may mean several things."""
    pixels = np.asarray(array)  # a np.matrix would stay a matrix
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    dtypes = {2: (np.uint8, np.uint16), 3: (np.uint8,)}.get(pixels.ndim, ())
    if not pixels.size or pixels.dtype not in dtypes or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        raise ValueError(
            f"images[{index}] is an {_said(array)}; give (H, W, 3) uint8 RGB, (H, W, 4) uint8 RGBA, or (H, W) grey, "
            "uint8 or uint16"
        )
    return Image.fromarray(pixels)


def _as_points(points: Any) -> np.ndarray | None:
    """Landmarks as lists or arrays, nested as Ray has them, or flat as manifests have them -> (N, 2)."""
    if points is None:
        return None
    try:
        found = np.array(np.asarray(points, object).tolist(), float)
    except (TypeError, ValueError) as error:
        raise CropError("bad_landmarks") from error
    return found.reshape(-1, 2) if found.ndim == 1 and found.size % 2 == 0 else found


def _said(value: object) -> str:
    """What a value is, for a message."""
    if isinstance(value, np.ndarray):
        return f"array of shape {value.shape} and dtype {value.dtype}"
    return type(value).__name__
