"""Where the classes of a mask lie, and in how many pieces.

A mask is read once as runs: stretches of a row with one class.  Coordinates are pixels of the mask, x to the right, y
down; the first pixel reaches from 0 to 1, and a right or bottom edge is exclusive.

H, W: height and width of the mask; K: classes; n: runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cc3d
import numpy as np

#: Bits of `Shapes.sides`.
LEFT, TOP, RIGHT, BOTTOM = 1, 2, 4, 8


class Shapes:
    """Of a mask (H, W) uint8 with class ids below K, or `masks.OUTSIDE` where the crop does not reach.

    Attributes of (K,): `px`, `left`, `top`, `right`, `bottom`, `components`, `largest` and `sides` int64, `x` and `y`
    (the centroid) float64.  Of a class without a pixel the box is empty and the centroid NaN.
    """

    def __init__(self, labels: np.ndarray, n_classes: int) -> None:
        self.labels, self.n_classes = np.ascontiguousarray(labels), n_classes
        self.height, self.width = labels.shape

    @cached_property
    def runs(self) -> Runs:
        starts_here = np.empty(self.labels.shape, bool)
        starts_here[:, 0] = True
        np.not_equal(self.labels[:, 1:], self.labels[:, :-1], out=starts_here[:, 1:])
        first = np.flatnonzero(starts_here)
        label, end = self.labels.ravel()[first], np.append(first[1:], self.labels.size)
        inside = label < self.n_classes
        if not inside.all():
            label, first, end = label[inside], first[inside], end[inside]
        row = first // self.width
        return Runs(label, row, first - row * self.width, end - row * self.width, first)

    @cached_property
    def px(self) -> np.ndarray:
        return self._sum(self.runs.length).astype(np.int64)

    @cached_property
    def left(self) -> np.ndarray:
        return self._least(self.runs.start, self.width)

    @cached_property
    def top(self) -> np.ndarray:
        return self._least(self.runs.row, self.height)

    @cached_property
    def right(self) -> np.ndarray:
        return self.width - self._least(self.width - self.runs.end, self.width)

    @cached_property
    def bottom(self) -> np.ndarray:
        return self.height - self._least(self.height - 1 - self.runs.row, self.height)

    @cached_property
    def x(self) -> np.ndarray:
        return self._mean((self.runs.start + self.runs.end) / 2)

    @cached_property
    def y(self) -> np.ndarray:
        return self._mean(self.runs.row + 0.5)

    @cached_property
    def sides(self) -> np.ndarray:
        touches = (self.left == 0, self.top == 0, self.right == self.width, self.bottom == self.height)
        bits = sum(touch * bit for touch, bit in zip(touches, (LEFT, TOP, RIGHT, BOTTOM), strict=True))
        return np.where(self.px > 0, bits, 0)

    @cached_property
    def components(self) -> np.ndarray:
        return self._components[0]

    @cached_property
    def largest(self) -> np.ndarray:
        return self._components[1]

    @cached_property
    def _components(self) -> tuple[np.ndarray, np.ndarray]:
        """8-connected pieces of each class, and the pixels of its largest one."""
        # cc3d leaves out 0, which here is what is outside: all others move up by one.
        shifted = self.labels + np.uint8(1)  # OUTSIDE becomes 0
        pieces, count = cc3d.connected_components(shifted, connectivity=8, return_N=True)
        piece = pieces.ravel()[self.runs.first]
        px = np.bincount(piece, self.runs.length, count + 1)[1:]
        label = np.empty(count + 1, np.intp)
        label[piece] = self.runs.label
        largest = np.zeros(self.n_classes)
        np.maximum.at(largest, label[1:], px)
        return np.bincount(label[1:], minlength=self.n_classes), largest.astype(np.int64)

    def _sum(self, values: np.ndarray) -> np.ndarray:
        return np.bincount(self.runs.label, values, self.n_classes)

    def _mean(self, values: np.ndarray) -> np.ndarray:
        return self._sum(values * self.runs.length) / np.where(self.px > 0, self.px, np.nan)

    def _least(self, values: np.ndarray, empty: int) -> np.ndarray:
        least = np.full(self.n_classes, empty)
        np.minimum.at(least, self.runs.label, values)
        return least


@dataclass(frozen=True)
class Runs:
    """(n,) class id, row, first column, end column (exclusive), and index of the first pixel in the flat mask."""

    label: np.ndarray
    row: np.ndarray
    start: np.ndarray
    end: np.ndarray
    first: np.ndarray

    @cached_property
    def length(self) -> np.ndarray:
        return self.end - self.start
