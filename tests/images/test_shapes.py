"""Shapes of random noise against plain loops over its pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segface_batch.images.masks import OUTSIDE
from segface_batch.images.shapes import Shapes

NAMES = ("px", "left", "top", "right", "bottom", "x", "y", "sides", "components", "largest")


def pieces(mask: np.ndarray) -> list[int]:
    """Pixels of each 8-connected piece of (H, W) bool, by flood fill."""
    left, found = {(int(row), int(column)) for row, column in np.argwhere(mask)}, []
    while left:
        todo, px = [left.pop()], 0
        while todo:
            row, column = todo.pop()
            px += 1
            around = {(row + down, column + along) for down in (-1, 0, 1) for along in (-1, 0, 1)} & left
            left -= around
            todo += around
        found.append(px)
    return found


def plain(labels: np.ndarray, label: int) -> dict[str, Any]:
    """Of one class, each of NAMES."""
    height, width = labels.shape
    rows, columns = np.nonzero(labels == label)
    if not len(rows):
        empty = {"px": 0, "left": width, "top": height, "right": 0, "bottom": 0, "x": np.nan, "y": np.nan}
        return empty | {"sides": 0, "components": 0, "largest": 0}
    left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    sides = 1 * (left == 0) + 2 * (top == 0) + 4 * (right == width) + 8 * (bottom == height)
    of = pieces(labels == label)
    return {
        "px": len(rows), "left": left, "top": top, "right": right, "bottom": bottom, "x": columns.mean() + 0.5,
        "y": rows.mean() + 0.5, "sides": sides, "components": len(of), "largest": max(of),
    }  # fmt: skip


def check(labels: np.ndarray, n_classes: int) -> None:
    ours = Shapes(labels, n_classes)
    found = {name: getattr(ours, name) for name in NAMES}
    assert {name: (values.shape, values.dtype.kind) for name, values in found.items()} == {
        name: ((n_classes,), "f" if name in ("x", "y") else "i") for name in NAMES
    }
    theirs = [plain(labels, label) for label in range(n_classes)]
    for name, values in found.items():
        np.testing.assert_allclose(values, [each[name] for each in theirs], rtol=1e-12, atol=0, err_msg=name)


@pytest.mark.parametrize("beyond", [False, True], ids=["whole", "beyond the crop"])
@pytest.mark.parametrize("n_classes", [2, 3, 11, 255])
def test_shapes_of_noise_are_those_of_a_flood_fill_and_of_its_pixels(n_classes: int, beyond: bool) -> None:
    random = np.random.default_rng(n_classes)
    for height, width in ((1, 1), (1, 9), (9, 1), (2, 2), (13, 20), (20, 13)):
        labels = random.integers(n_classes, size=(height, width)).astype(np.uint8)
        labels[random.random(labels.shape) < 0.6] = 0  # of many classes the most have no pixel
        if beyond:
            labels[random.random(labels.shape) < 0.2] = OUTSIDE
        check(labels, n_classes)


def test_shapes_of_noise_as_large_as_strokes_are_those_of_a_flood_fill() -> None:
    labels = np.random.default_rng(0).integers(4, size=(8, 7)).astype(np.uint8)
    check(np.kron(labels, np.ones((3, 5), np.uint8)), 5)


def test_a_mask_that_lies_otherwise_in_memory_has_the_same_shapes() -> None:
    labels = np.random.default_rng(0).integers(4, size=(12, 9)).astype(np.uint8)
    for view in (labels.T, labels[::-1], labels[:, ::2], np.asfortranarray(labels)):
        check(view, 4)


def test_a_mask_that_the_crop_does_not_reach_has_no_shape() -> None:
    check(np.full((3, 4), OUTSIDE, np.uint8), 2)
