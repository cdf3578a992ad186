"""Crops of images as a checkpoint was trained on them, with the landmarks that its network takes.

Images that are crops already: CelebAMask-HQ and LaPa take the whole image, Helen a square around the face; each is
stretched to the checkpoint's square by Pillow's bicubic filter, as the official loaders do
(github.com/Kartik-3004/SegFace, commit 9416628), or nearly so (`near`: resize.py).  Faces in a photograph are cropped
as CelebA-HQ was made from CelebA (align.py).  Images come upright and as RGB; the network normalises them.

R: side of the square in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from segface_batch.catalog import Checkpoint
from segface_batch.errors import ImageError
from segface_batch.images import align
from segface_batch.images.faces import Faces
from segface_batch.images.resize import bicubic, near_bicubic

#: (left, top, right, bottom) in pixels of the upright image.
Box = tuple[float, float, float, float]

#: Landmarks that LaPa annotates, and Helen (the iBUG scheme).
_LAPA_POINTS = 106
_HELEN_POINTS = 68

#: Side of Helen's square, as a multiple of the longer side of the box of all points.
_HELEN_MARGIN = np.float32(1.2)

#: Side of LaPa's crop of a photograph, as a multiple of CelebA-HQ's: LaPa's images show about so much around a face (a
#: guess: no trained weights were at hand).
_LAPA_REACH = 2.0

#: Landmarks that all lie within a pixel (of LaPa's whole crop, else of the image) are no face's; nor is a smaller box.
_SMALLEST_FACE = 1.0

#: Pixels from an image's corner to a coordinate, at most: beyond, sums leave float32.
_FARTHEST = 1e9


class CropError(ImageError):
    """The image cannot be cropped as the checkpoint needs."""


@dataclass(frozen=True)
class Crop:
    """`pixels` (R, R, 3) uint8 RGB; for LaPa `landmarks` (5, 2) float32 (x, y) in pixels of the crop: the eyes, nose
    tip and mouth corners, left before right as seen; None for the other networks, which take none.

    `box` is the face's box in the image (where the image is the crop already: all of it, or Helen's square);
    `transform` (2, 3) float64 takes (x, y, 1) in the crop to the image; `score` and `points` (5, 2), in pixels of the
    image, are the detector's.
    """

    pixels: np.ndarray
    landmarks: np.ndarray | None
    box: Box
    transform: np.ndarray = field(default_factory=lambda: np.eye(2, 3))
    score: float | None = None
    points: np.ndarray | None = None


def crop_image(
    image: Image.Image, checkpoint: Checkpoint, points: np.ndarray | None = None, *, near: bool = False
) -> Crop:
    """The crop of an image of one face for a checkpoint.

    `points` (N, 2) are (x, y) in pixels of the image: for LaPa its 106 or the five, for Helen the 68 of iBUG.  (Helen's
    own `landmarks.txt` has doubled coordinates: halve them.)  CropError where they are missing or wrong.
    """
    if checkpoint.dataset.landmarks != "68":
        return crop_whole(image, image.width, image.height, checkpoint, points, near=near)
    sixty_eight = _checked(points, _HELEN_POINTS)
    if np.ptp(sixty_eight, axis=0).max() < _SMALLEST_FACE:
        raise CropError("bad_landmarks")
    box = helen_box(sixty_eight, image.width, image.height)
    return _stretched(image.crop(box), box, checkpoint.resolution, near)


def crop_whole(
    image: Image.Image,
    width: int,
    height: int,
    checkpoint: Checkpoint,
    points: np.ndarray | None = None,
    *,
    near: bool = False,
) -> Crop:
    """The crop of a whole image of `width` x `height` pixels, for checkpoints of CelebAMask-HQ and LaPa.

    `image` may have another scale than that; `points` are as in `crop_image`, in pixels of `width` x `height`.
    """
    side, landmarks = checkpoint.resolution, None
    if checkpoint.dataset.landmarks == "five":
        landmarks = five_landmarks(_checked(points, 5, _LAPA_POINTS)) * (side / np.array([width, height]))
        landmarks = landmarks.astype(np.float32)
        if not np.isfinite(landmarks).all() or np.ptp(landmarks, axis=0).max() < _SMALLEST_FACE:
            raise CropError("bad_landmarks")
    return replace(_stretched(image, (0, 0, width, height), side, near), landmarks=landmarks)


def crop_given(image: Image.Image, checkpoint: Checkpoint, points: np.ndarray | None) -> Crop:
    """The crop of the face with these landmarks in a photograph, for a checkpoint.

    CelebAMask-HQ's take the five, LaPa's 106 or the 68 of iBUG; the others as in `crop_image`.
    """
    if checkpoint.dataset.landmarks:
        return crop_image(image, checkpoint, points)
    points = _checked(points, 5, _LAPA_POINTS, _HELEN_POINTS)
    left, top, right, bottom = (float(side) for side in (*points.min(axis=0), *points.max(axis=0)))
    return _crop_face(image, checkpoint, (left, top, right, bottom), five_landmarks(points))


def crop_faces(image: Image.Image, checkpoint: Checkpoint, faces: Faces) -> Iterator[Crop | str]:
    """The crop of each face that a detector found, for a checkpoint, or the word of the face's error."""
    for box, score, points in zip(faces.boxes.tolist(), faces.scores.tolist(), faces.landmarks, strict=True):
        try:
            yield _crop_face(image, checkpoint, (box[0], box[1], box[2], box[3]), points, score)
        except CropError as error:
            yield str(error)


def _crop_face(
    image: Image.Image, checkpoint: Checkpoint, box: Box, points: np.ndarray, score: float | None = None
) -> Crop:
    """The crop of a face in a photograph by its box and five landmarks; for Helen the box replaces that of the 68."""
    side, needs = checkpoint.resolution, checkpoint.dataset.landmarks
    if np.ptp(points, axis=0).max() < _SMALLEST_FACE:
        raise CropError("bad_landmarks")
    if needs == "68":
        corners = np.array(box, np.float32).reshape(2, 2)
        square = helen_box(corners, image.width, image.height)
        return replace(_stretched(image.crop(square), square, side), score=score, points=points)
    transform = align.transform(points, side, _LAPA_REACH if needs else 1.0)
    try:
        pixels = align.pixels(image, transform, side)
    except ValueError as error:
        raise CropError("bad_landmarks") from error
    landmarks = None
    if needs:
        landmarks = np.linalg.solve(transform[:, :2], (points - transform[:, 2]).T).T.astype(np.float32)
    return Crop(pixels, landmarks, box, transform, score, points)


def _stretched(image: Image.Image, box: tuple[int, int, int, int], side: int, near: bool = False) -> Crop:
    """The crop that is `image` stretched to a square; `box` is its place in the whole image."""
    left, top, right, bottom = box
    transform = np.array([[(right - left) / side, 0, left], [0, (bottom - top) / side, top]])
    return Crop((near_bicubic if near else bicubic)(image, side), None, box, transform)


def stacked(crops: Sequence[Crop]) -> tuple[np.ndarray, np.ndarray | None]:
    """What a network gets of crops: pixels (B, R, R, 3) uint8, and landmarks (B, 5, 2) float32 where they have some."""
    landmarks = [crop.landmarks for crop in crops if crop.landmarks is not None]
    return np.stack([crop.pixels for crop in crops]), np.stack(landmarks) if landmarks else None


def given_box(corners: np.ndarray, width: int, height: int) -> Box:
    """(2, 2) corners of a box, left top and right bottom -> the box; CropError where its middle is outside the image of
    `width` x `height` pixels, a side is shorter than a pixel, or a number is none or huge."""
    if not (abs(corners) < _FARTHEST).all():
        raise CropError("bad_box")
    (left, top), (right, bottom) = corners.astype(float).tolist()
    x, y = (left + right) / 2, (top + bottom) / 2
    if min(right - left, bottom - top) < _SMALLEST_FACE or not (0 <= x <= width and 0 <= y <= height):
        raise CropError("bad_box")
    return left, top, right, bottom


def five_landmarks(points: np.ndarray) -> np.ndarray:
    """LaPa's 106 points, iBUG's 68 or the five -> (5, 2): left eye, right eye, nose tip, mouth corners."""
    if len(points) == 5:
        return points
    if len(points) == _HELEN_POINTS:
        return np.stack([points[36:42].mean(axis=0), points[42:48].mean(axis=0), points[30], points[48], points[54]])
    left_eye, right_eye = (points[74] + points[104]) / 2, (points[83] + points[105]) / 2
    return np.stack([left_eye, right_eye, points[54], points[84], points[90]])


def helen_box(points: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """The square around all points with a margin, clipped to the image (so it may not be square).

    It is computed in float32 and rounded towards zero at the same places as in the official loader.
    """
    low = points.min(axis=0)
    extent = points.max(axis=0) - low + np.float32(1)
    side = int(extent.max() * _HELEN_MARGIN)
    left, top = (int(middle) - side // 2 for middle in low + extent / 2)
    box = max(0, left), max(0, top), min(width, left + side), min(height, top + side)
    if box[0] >= box[2] or box[1] >= box[3]:
        raise CropError("bad_landmarks")
    return box


def _checked(points: np.ndarray | None, *counts: int) -> np.ndarray:
    """The points as float32 (N, 2), with N one of the counts and every coordinate a number near any image."""
    if points is None or np.size(points) == 0:
        raise CropError("no_landmarks")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
        points = np.asarray(points).astype(np.float32)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) not in counts or not (abs(points) < _FARTHEST).all():
        raise CropError("bad_landmarks")
    return points
