"""CelebA-HQ's crop: a rotated square around a face, placed by its eyes and mouth.

Karras et al. 2018 (arXiv 1710.10196), appendix C: e is the vector from the left eye to the right one as seen, m from
the middle of the eyes to the middle of the mouth.  The x axis of the square has the direction of e - R m (R: rotation
by 90 degrees), its half side is max(2 |e|, 1.8 |m|), and its middle is at a tenth of m from the middle of the eyes.
Beyond its edges the image is reflected.

A transform is (2, 3) float64: it takes (x, y, 1) in the crop to the image.  Coordinates are those of pixel edges: the
first pixel reaches from 0 to 1.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

#: A crop is sampled at a multiple of its resolution and averaged; from twice this multiple on, the image is averaged
#: beforehand.
_FINEST = 2

#: A square whose side is more than this many times the image's longer side shows mostly reflections of reflections.
LARGEST = 4.0


def transform(landmarks: np.ndarray, side: int, reach: float = 1.0) -> np.ndarray:
    """(5, 2) landmarks as in `Faces` -> the transform of the crop of `side` pixels; not finite where they coincide.

    `reach` scales the square around its middle.
    """
    left, right, _, mouth_left, mouth_right = landmarks.astype(np.float64) @ [1, 1j]
    eyes, mouth = (left + right) / 2, (mouth_left + mouth_right) / 2
    down = mouth - eyes
    along = (right - left) - 1j * down  # both terms point right
    along *= reach * max(2 * abs(right - left), 1.8 * abs(down)) / abs(along)
    middle, step = eyes + 0.1 * down, 2 * along / side
    corner = middle - along - 1j * along
    return np.array([[step.real, -step.imag, corner.real], [step.imag, step.real, corner.imag]])


def pixels(image: Image.Image, placed: np.ndarray, side: int) -> np.ndarray:
    """(side, side, 3) uint8: the crop of an RGB image that a result of `transform` places.

    ValueError where the crop's middle is outside the image, or the crop larger than LARGEST allows.
    """
    scale, middle = float(np.hypot(*placed[:, 0])), placed @ [side / 2, side / 2, 1]
    inside = (middle >= 0).all() and (middle <= image.size).all()  # False where it is not finite
    if not inside or scale * side > LARGEST * max(image.size):
        raise ValueError("the crop is not a place in the image")
    corners = placed @ np.array([[0, side, 0, side], [0, 0, side, side], [1, 1, 1, 1]])
    reach = int(np.ceil(2 * max(scale, 1)))
    low, high = np.floor(corners.min(axis=1)).astype(int) - reach, np.ceil(corners.max(axis=1)).astype(int) + reach
    region = reflected(image, (int(low[0]), int(low[1]), int(high[0]), int(high[1])))
    # Sampling in coarse steps would skip pixels: means of k x k pixels, no coarser than the crop, are sampled instead.
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
    """The (left, top, right, bottom) box of the image, reflected at its edges as often as the box needs."""
    left, top, right, bottom = box
    if left >= 0 and top >= 0 and right <= image.width and bottom <= image.height:
        return image.crop(box)
    rows, columns = _reflected(top, bottom, image.height), _reflected(left, right, image.width)
    first = columns.min(), rows.min()
    part = image.crop((int(first[0]), int(first[1]), int(columns.max()) + 1, int(rows.max()) + 1))
    return Image.fromarray(np.asarray(part)[rows - first[1]][:, columns - first[0]])


def _reflected(first: int, last: int, length: int) -> np.ndarray:
    """Indices of the pixels first to last (exclusive) of a row that is reflected at both ends without limit."""
    indices = np.arange(first, last) % (2 * length)
    return np.minimum(indices, 2 * length - 1 - indices)
