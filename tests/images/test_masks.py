"""Masks come back to the pixel, as plain PNG, small whether smooth or noise."""

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
