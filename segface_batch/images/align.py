"""CelebA-HQ's crop: a turned square around a face, placed by its eyes and mouth.

Karras et al. 2018 (arXiv 1710.10196), appendix C: with e the vector from the left eye to the right one as seen, and m
from the middle of the eyes to that of the mouth, the square is turned as e - R m (R: by 90 degrees), its half side is
max(2 |e|, 1.8 |m|), and its middle lies a tenth of m below the eyes.  What lies outside the image is its reflection.

A transform is (2, 3) float64: it takes (x, y, 1) in the crop, in pixels counted by their edges, to the image.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

#: A crop is read at most so many times finer than it is, then scaled down.
_FINEST = 2

#: Larger squares than this many times the image's longer side are mostly reflections of reflections.
LARGEST = 4.0


def transform(landmarks: np.ndarray, side: int, reach: float = 1.0) -> np.ndarray:
    """(5, 2) landmarks as in `Faces` -> the transform of the crop of `side` pixels; not finite where they coincide.

    With `reach` the square is so many times as wide, around the same middle.
    """
    left, right, _, mouth_left, mouth_right = landmarks.astype(np.float64) @ [1, 1j]
    eyes, mouth = (left + right) / 2, (mouth_left + mouth_right) / 2
    down = mouth - eyes
    along = (right - left) - 1j * down  # both say where right is
    along *= reach * max(2 * abs(right - left), 1.8 * abs(down)) / abs(along)
    middle, step = eyes + 0.1 * down, 2 * along / side
    corner = middle - along - 1j * along
    return np.array([[step.real, -step.imag, corner.real], [step.imag, step.real, corner.imag]])


def pixels(image: Image.Image, placed: np.ndarray, side: int) -> np.ndarray:
    """(side, side, 3) uint8: the RGB image under the crop that `transform` placed, whose middle it must show."""
    scale, middle = float(np.hypot(*placed[:, 0])), placed @ [side / 2, side / 2, 1]
    shown = (middle >= 0).all() and (middle <= image.size).all()  # False where it is not finite
    if not shown or scale * side > LARGEST * max(image.size):
        raise ValueError("the crop is not a place in the image")
    corners = placed @ np.array([[0, side, 0, side], [0, 0, side, side], [1, 1, 1, 1]])
    reach = int(np.ceil(2 * max(scale, 1)))
    low, high = np.floor(corners.min(axis=1)).astype(int) - reach, np.ceil(corners.max(axis=1)).astype(int) + reach
    region = reflected(image, (int(low[0]), int(low[1]), int(high[0]), int(high[1])))
    # A coarse step would pass pixels over: means of k x k are read instead, at least as finely as the crop.
    k = max(1, int(scale / _FINEST))
    region = region.reduce(k)
    finer = max(1, int(np.ceil(scale / k)))
    step = placed[:, :2] / k / finer
    shift = (placed[:, 2] - low) / k
    matrix = (*step[0], shift[0], *step[1], shift[1])
    square = (side * finer, side * finer)
    region = region.transform(square, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return np.asarray(region.reduce(finer))


def reflected(image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
    """The box of the image, which is reflected at its edges as often as the box reaches beyond."""
    left, top, right, bottom = box
    if left >= 0 and top >= 0 and right <= image.width and bottom <= image.height:
        return image.crop(box)
    rows, columns = _reflected(top, bottom, image.height), _reflected(left, right, image.width)
    first = columns.min(), rows.min()
    part = image.crop((int(first[0]), int(first[1]), int(columns.max()) + 1, int(rows.max()) + 1))
    return Image.fromarray(np.asarray(part)[rows - first[1]][:, columns - first[0]])


def _reflected(first: int, last: int, length: int) -> np.ndarray:
    """Indices first to last (exclusive) of a row of pixels that is followed by its reflection, without end."""
    indices = np.arange(first, last) % (2 * length)
    return np.minimum(indices, 2 * length - 1 - indices)
