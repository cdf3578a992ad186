"""Statistics of masks that a reader can count, and the columns that follow from the table."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from segface_batch.images.masks import OUTSIDE
from segface_batch.images.statistics import Mask, columns, fields, measured

CLASSES = ("background", "skin", "hair")

#: Three pixels of hair, one of skin, four of background.
FACE = np.array([[0, 2, 2, 0], [0, 1, 2, 0]], np.uint8)

#: The same laid into an image that reaches beyond the crop to the right.
TURNED = np.array([[0, 2, 2, OUTSIDE], [OUTSIDE, 1, 2, OUTSIDE]], np.uint8)


def test_every_column_of_a_mask_has_its_value() -> None:
    assert measured(FACE, CLASSES) == {
        "mask_pixels": 8,
        "px_background": 4,
        "px_skin": 1,
        "px_hair": 3,
        "frac_background": 0.5,
        "frac_skin": 0.125,
        "frac_hair": 0.375,
    }


def test_pixels_outside_the_crop_are_in_no_column() -> None:
    assert measured(TURNED, CLASSES) == {
        "mask_pixels": 5,
        "px_background": 1,
        "px_skin": 1,
        "px_hair": 3,
        "frac_background": 0.2,
        "frac_skin": 0.2,
        "frac_hair": 0.6,
    }


def test_a_mask_counts_the_pixels_of_every_class_of_its_table() -> None:
    mask = Mask(np.array([[3, 3], [0, 3]], np.uint8), 5)
    assert (mask.class_pixels.tolist(), mask.class_pixels.dtype, mask.pixels) == ([1, 0, 0, 3, 0], np.int32, 4)


def test_masks_of_a_batch_give_an_array_per_column_with_nulls_where_there_is_no_mask() -> None:
    found = columns([FACE, None, TURNED], CLASSES)
    assert {name: values.to_pylist() for name, values in found.items()} == {
        "mask_pixels": [8, None, 5],
        "px_background": [4, None, 1],
        "px_skin": [1, None, 1],
        "px_hair": [3, None, 3],
        "frac_background": [0.5, None, pytest.approx(0.2)],
        "frac_skin": [0.125, None, pytest.approx(0.2)],
        "frac_hair": [0.375, None, pytest.approx(0.6)],
    }


def test_columns_have_the_same_types_whatever_the_masks() -> None:
    kinds = {name: pa.float32() if name.startswith("frac_") else pa.int32() for name in columns([FACE], CLASSES)}
    for masks in ([FACE], [None], []):
        assert {name: values.type for name, values in columns(masks, CLASSES).items()} == kinds


def test_fields_are_the_columns_with_their_types() -> None:
    assert fields(CLASSES, per_class=False) == [pa.field("mask_pixels", pa.int32())]
    assert fields(CLASSES, per_class=True) == [
        *(pa.field(f"px_{name}", pa.int32()) for name in CLASSES),
        *(pa.field(f"frac_{name}", pa.float32()) for name in CLASSES),
    ]
