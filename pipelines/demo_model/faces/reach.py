"""How far one head reaches from its middle in every direction: what hair, hats and necklaces rest upon.

Two maps, each a step of 7.5 degrees wide around the vertical: distances from a point inside the skull for what lies
above it, and from the vertical axis, by height, for what lies below (jaw, neck, shoulders).
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter1d, map_coordinates

from pipelines.demo_model.faces.head import AXIS_Z, EYES, Person

#: Columns of both maps, and rows of the map of the skull, from the top to the bottom.
AROUND, ROWS = 48, 24

#: Height of a row of the map below the skull's middle, dm.
ROW_HEIGHT = 0.12

#: Middle of the skull at rest.
MIDDLE = np.array([0, 7.35, 0.3])


class Reach:
    """The two maps of one person."""

    def __init__(self, person: Person, body: np.ndarray) -> None:
        """`body` are the numbers of the vertices that count: skin, not eyes nor teeth."""
        points = person.vertices[body]
        self.middle = MIDDLE + (person.eyes - EYES) * [0, 1, 0]
        away = points - self.middle
        distance = np.linalg.norm(away, axis=1)
        from_top = np.arccos(np.clip(away[:, 1] / distance, -1, 1))
        skull = np.zeros((ROWS, AROUND), np.float32)
        row = (from_top / np.pi * ROWS).astype(int).clip(0, ROWS - 1)
        np.maximum.at(skull, (row, _cell(np.arctan2(away[:, 0], away[:, 2]))), distance)

        self._lowest = points[:, 1].min()
        rows = int((self.middle[1] - self._lowest) / ROW_HEIGHT) + 2
        trunk = np.zeros((rows, AROUND), np.float32)
        row = ((points[:, 1] - self._lowest) / ROW_HEIGHT).astype(int).clip(0, rows - 1)
        distance = np.hypot(points[:, 0], points[:, 2] - AXIS_Z)
        below = np.where(points[:, 1] < self.middle[1] + 0.1, distance, 0)
        np.maximum.at(trunk, (row, _cell(np.arctan2(points[:, 0], points[:, 2] - AXIS_Z))), below)
        self._skull, self._trunk = _filled(skull), _filled(trunk)

    def of_skull(self, from_top: np.ndarray, around: np.ndarray) -> np.ndarray:
        """Distance from the middle, by the angles from the vertical and around it from the front, radians."""
        return _look_up(self._skull, from_top / np.pi * ROWS - 0.5, around)

    def of_trunk(self, y: np.ndarray, around: np.ndarray) -> np.ndarray:
        """Distance from the vertical axis at height y and at an angle from the front, radians."""
        return _look_up(self._trunk, (y - self._lowest) / ROW_HEIGHT - 0.5, around)

    def pushed_out(self, points: np.ndarray, clearance: np.ndarray) -> np.ndarray:
        """(N, 3) points, those inside the head moved out until they are `clearance` (N,) above it."""
        upper = points[:, 1] > self.middle[1]
        away = points - self.middle
        distance = np.linalg.norm(away, axis=1) + 1e-6
        from_top = np.arccos(np.clip(away[:, 1] / distance, -1, 1))
        needed = self.of_skull(from_top, np.arctan2(away[:, 0], away[:, 2])) + clearance
        factor = np.where(upper & (distance < needed), needed / distance, 1.0)
        points = self.middle + away * factor[:, None]

        distance = np.hypot(points[:, 0], points[:, 2] - AXIS_Z) + 1e-6
        needed = self.of_trunk(points[:, 1], np.arctan2(points[:, 0], points[:, 2] - AXIS_Z)) + clearance
        factor = np.where(~upper & (distance < needed), needed / distance, 1.0)
        x = points[:, 0] * factor
        z = AXIS_Z + (points[:, 2] - AXIS_Z) * factor
        return np.stack([x, points[:, 1], z], 1)


def _cell(around: np.ndarray) -> np.ndarray:
    return ((around + np.pi) / (2 * np.pi) * AROUND).astype(int) % AROUND


def _look_up(table: np.ndarray, row: np.ndarray, around: np.ndarray) -> np.ndarray:
    row = row.clip(0, len(table) - 1)
    return map_coordinates(table, [row, (around + np.pi) / (2 * np.pi) * AROUND - 0.5], order=1, mode="grid-wrap")


def _filled(table: np.ndarray) -> np.ndarray:
    """The map with its empty cells (0) filled from their neighbours, up to six cells far, and smoothed."""
    for _ in range(6):
        empty = table <= 0
        if not empty.any():
            break
        above, below = np.roll(table, 1, 0), np.roll(table, -1, 0)
        above[0] = 0
        below[-1] = 0
        neighbors = np.stack([np.roll(table, 1, 1), np.roll(table, -1, 1), above, below])
        known = (neighbors > 0).sum(0)
        table = np.where(empty & (known > 0), neighbors.sum(0) / np.maximum(known, 1), table)
    return gaussian_filter1d(gaussian_filter1d(table, 0.7, 0, mode="nearest"), 0.7, 1, mode="wrap")
