"""Masks come back to the pixel, as plain PNG, small whether smooth or noise, and are pasted where their crop lies."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from segface_batch.demo import TRUTH
from segface_batch.images import masks


def smooth() -> np.ndarray:
    with Image.open(TRUTH / "rendered" / "2000001.png") as image:
        return np.asarray(image.resize((512, 512), Image.Resampling.NEAREST))


def noise() -> np.ndarray:
    """Blobs of a few pixels, as untrained weights give them."""
    small = np.random.default_rng(0).integers(0, 19, (256, 256), dtype=np.uint8)
    return np.repeat(np.repeat(small, 2, axis=0), 2, axis=1)


@pytest.mark.parametrize("mask", [smooth(), noise(), np.zeros((3, 5), np.uint8)], ids=["smooth", "noise", "tiny"])
def test_a_mask_comes_back_to_the_pixel_as_8_bit_grey(mask: np.ndarray) -> None:
    png = masks.encode(mask)
    assert np.array_equal(masks.decode(png), mask)
    assert png == masks.encode(mask.copy())
    with Image.open(BytesIO(png)) as image:
        assert (image.format, image.mode) == ("PNG", "L")


@pytest.mark.parametrize(("mask", "share"), [(smooth(), 0.95), (noise(), 1.0)], ids=["smooth", "noise"])
def test_a_mask_is_smaller_than_by_pillows_settings_and_noise_no_larger(mask: np.ndarray, share: float) -> None:
    plain = BytesIO()
    Image.fromarray(mask).save(plain, "PNG")
    assert len(masks.encode(mask)) <= share * len(plain.getvalue())


def test_a_mask_is_pasted_to_the_pixels_of_the_image_that_its_crop_covers() -> None:
    mask, place = np.array([[1, 2], [3, 4]], np.uint8), np.array([[2.0, 0, 1], [0, 2, 0]])
    for width, height, expected in (
        (6, 5, [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]),
        (4, 3, [[1, 1, 2], [1, 1, 2], [3, 3, 4]]),  # the crop reaches beyond the image
    ):
        pasted, corner = masks.paste(mask, place, width, height)
        assert (pasted.tolist(), pasted.dtype, corner) == (expected, np.uint8, (1, 0))


def test_around_a_rotated_crop_a_pasted_mask_is_outside() -> None:
    """A square on its corner, its middle at (5, 4) of the image."""
    place = np.array([[1.9, -1.9, 5], [1.9, 1.9, 0.2]])
    pasted, corner = masks.paste(np.full((2, 2), 7, np.uint8), place, 100, 100)
    y, x = np.indices((8, 8)) + 0.5
    assert corner == (1, 0)
    assert np.array_equal(pasted, np.where(abs(x - 4) + abs(y - 4) < 3.8, 7, masks.OUTSIDE))
