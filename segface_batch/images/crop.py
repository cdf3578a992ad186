"""How an image becomes what a checkpoint was trained on: its crop, and the landmarks that go with it.

Ready crops: CelebAMask-HQ and LaPa take the whole image, Helen a square around the face; each is stretched to the
checkpoint's square by Pillow's bicubic filter, as the official loaders do (github.com/Kartik-3004/SegFace, commit
9416628), or nearly so (`near`: resize.py).  Faces that were found in a photograph are cut out as CelebA-HQ was made of
CelebA (`aligned`).  Images come upright and as RGB; normalising is the device's work.

R: side of the square in pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from segface_batch.catalog import Checkpoint
from segface_batch.errors import ImageError
from segface_batch.images import align as aligned
from segface_batch.images.faces import Faces
from segface_batch.images.resize import bicubic, near_bicubic

#: (left, top, right, bottom) in pixels of the upright image.
Box = tuple[float, float, float, float]

#: How many points LaPa annotates, and Helen (the iBUG scheme).
_LAPA_POINTS = 106
_HELEN_POINTS = 68

#: Side of Helen's square, as a multiple of the longer side of the box of all points.
_HELEN_MARGIN = np.float32(1.2)

#: LaPa's warp shows the surroundings of a face too; its images have about so much of them, in CelebA-HQ's squares (a
#: guess: no trained weights were at hand).
_LAPA_REACH = 2.0

#: Landmarks nearer together than a pixel (of the crop for LaPa, of the image for Helen) belong to no face.
_SMALLEST_FACE = 1.0


class CropError(ImageError):
    """The image cannot be cropped as the checkpoint needs."""


@dataclass(frozen=True)
class Crop:
    """`pixels` (R, R, 3) uint8 RGB; `landmarks` (5, 2) float32 (x, y) in pixels of the crop for LaPa: the eyes, nose
    tip and mouth corners, left before right as seen; None for the others, whose networks take none.

    `box` is the face's in the image (of a ready crop all of it, or Helen's square), `transform` (2, 3) float64 takes
    (x, y, 1) of the crop to the image, `score` and `points` (5, 2), in pixels of the image, are the detector's.
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
    """The image as the checkpoint wants it.

    `points` (N, 2) are (x, y) in pixels of the image: LaPa's 106 or the five for LaPa, the 68 of iBUG for Helen.
    (Helen's own `landmarks.txt` holds doubled coordinates: halve them.)  CropError where they are missing or unfit.
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
    """The whole of an image of `width` x `height` pixels, which `image` shows at any scale, as the checkpoint wants
    it; for those of CelebAMask-HQ and LaPa, with points as in `crop`."""
    side, landmarks = checkpoint.resolution, None
    if checkpoint.dataset.landmarks == "five":
        landmarks = five_landmarks(_checked(points, 5, _LAPA_POINTS)) * (side / np.array([width, height]))
        landmarks = landmarks.astype(np.float32)
        if not np.isfinite(landmarks).all() or np.ptp(landmarks, axis=0).max() < _SMALLEST_FACE:
            raise CropError("bad_landmarks")
    return replace(_stretched(image, (0, 0, width, height), side, near), landmarks=landmarks)


def crop_given(image: Image.Image, checkpoint: Checkpoint, points: np.ndarray | None) -> Crop:
    """The face with these landmarks in a photograph, as the checkpoint wants it.

    For CelebAMask-HQ's checkpoints the five, LaPa's 106 or the 68 of iBUG; for the others as in `crop`.
    """
    if checkpoint.dataset.landmarks:
        return crop_image(image, checkpoint, points)
    points = _checked(points, 5, _LAPA_POINTS, _HELEN_POINTS)
    left, top, right, bottom = (float(side) for side in (*points.min(axis=0), *points.max(axis=0)))
    return _crop_face(image, checkpoint, (left, top, right, bottom), five_landmarks(points))


def crop_faces(image: Image.Image, checkpoint: Checkpoint, faces: Faces) -> Iterator[Crop | str]:
    """Each face that a detector found as the checkpoint wants it, or the word of its error."""
    for box, score, points in zip(faces.boxes.tolist(), faces.scores.tolist(), faces.landmarks, strict=True):
        try:
            yield _crop_face(image, checkpoint, (box[0], box[1], box[2], box[3]), points, score)
        except CropError as error:
            yield str(error)


def _crop_face(
    image: Image.Image, checkpoint: Checkpoint, box: Box, points: np.ndarray, score: float | None = None
) -> Crop:
    """A face of a photograph by its box and five landmarks; for Helen its box stands for that of the 68."""
    side, needs = checkpoint.resolution, checkpoint.dataset.landmarks
    if np.ptp(points, axis=0).max() < _SMALLEST_FACE:
        raise CropError("bad_landmarks")
    if needs == "68":
        corners = np.array(box, np.float32).reshape(2, 2)
        square = helen_box(corners, image.width, image.height)
        return replace(_stretched(image.crop(square), square, side), score=score, points=points)
    transform = aligned.transform(points, side, _LAPA_REACH if needs else 1.0)
    try:
        pixels = aligned.pixels(image, transform, side)
    except ValueError as error:
        raise CropError("bad_landmarks") from error
    landmarks = None
    if needs:
        landmarks = np.linalg.solve(transform[:, :2], (points - transform[:, 2]).T).T.astype(np.float32)
    return Crop(pixels, landmarks, box, transform, score, points)


def _stretched(image: Image.Image, box: tuple[int, int, int, int], side: int, near: bool = False) -> Crop:
    """What is in a box of the image, stretched to a square."""
    left, top, right, bottom = box
    transform = np.array([[(right - left) / side, 0, left], [0, (bottom - top) / side, top]])
    return Crop((near_bicubic if near else bicubic)(image, side), None, box, transform)


def given_box(corners: np.ndarray, width: int, height: int) -> Box:
    """(2, 2) corners of a box, left top and right bottom, in an image of that size -> the box, which may reach beyond
    the image by half; CropError where it is no place in it."""
    if not np.isfinite(corners).all():
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
    """The square around all points with a margin, cut at the borders of the image (so it may not be square).

    float32 and rounded towards zero at the same places as the official loader.
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
    """The points as float32 (N, 2), with N one of the counts and every coordinate finite."""
    if points is None or np.size(points) == 0:
        raise CropError("no_landmarks")
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused
        points = np.asarray(points).astype(np.float32)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) not in counts or not np.isfinite(points).all():
        raise CropError("bad_landmarks")
    return points
