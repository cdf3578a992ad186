"""What curators ask of a face, measured on its mask and crop: pose, framing, openness, cover, light and focus.

These are proxies from areas and boxes, not the scores of ISO/IEC 29794-5 whose definitions some of them follow: for
those see OFIQ (github.com/BSI-OFIQ/OFIQ-Project, commit a16a990, `OFIQlib/modules/measures/src`).  "Left" and "right"
are sides of the picture, whatever the class names say.  A measure is None where a class that it needs has no pixel.

D: distance of the eyes' centroids; T: distance from the middle between them to the chin, the lowest pixel of the face.
Both are in pixels of the photograph.  H, W: height and width of the crop in pixels; K: classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from segface_batch.catalog import FACE, PAIRED, Dataset
from segface_batch.images import masks
from segface_batch.images.shapes import Shapes

#: Rows of OFIQ's aligned crop that can show a head cover, of all its rows (NoHeadCoverings drops the lower 204 of 400).
_HEAD_ROWS = 196 / 400

#: A box of eyes is grown by this part of the distance of the eyes on each side (OFIQ, EyesVisible).
_EYE_MARGIN = 1 / 20

#: What covers an eye or a mouth, as far as the class table has it.
_COVERS = ("background", "hair", "hat", "cloth")

#: Grey levels, up to and from which a pixel counts as clipped: resizing blurs 0 and 255.
_DARK, _BRIGHT = 5, 250

_LEVELS = np.arange(256.0)

#: Pixels by which a crop may seem to reach beyond its photograph by rounding.
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class CroppedFace:
    """A face as the network saw it: `labels` (H, W) uint8, `pixels` (H, W, 3) uint8 RGB or None where there are none,
    `transform` (2, 3) from the crop to the photograph, and `size` (width, height) of that."""

    labels: np.ndarray
    dataset: Dataset
    transform: np.ndarray
    size: tuple[int, int]
    pixels: np.ndarray | None = None

    @cached_property
    def inside(self) -> np.ndarray:
        """The labels, `masks.OUTSIDE` where the crop reaches beyond the photograph: what is seen there is made up."""
        height, width = self.labels.shape
        corners = self.transform @ ((0, width, 0, width), (0, 0, height, height), (1, 1, 1, 1))
        limits = np.array(self.size)[:, None]
        if (corners > -_TOLERANCE).all() and (corners < limits + _TOLERANCE).all():
            return self.labels
        columns, rows = (np.arange(length) + 0.5 for length in (width, height))
        found = self.labels.copy()
        for (across, down, shift), limit in zip(self.transform, self.size, strict=True):
            places = across * columns + (down * rows + shift)[:, None]
            found[(places < 0) | (places > limit)] = masks.OUTSIDE
        return found

    @cached_property
    def shapes(self) -> Shapes:
        return Shapes(self.inside, len(self.dataset.classes))

    # Which class is where.

    def seen(self, common: str) -> int | None:
        """The id of the class, or None where it has no pixel."""
        return next((index for index in self.dataset.ids(common) if self.shapes.px[index]), None)

    def pair(self, common: str) -> tuple[int, int] | None:
        """The ids of a pair, the left one in the picture first; None where the table has none."""
        ids = self.dataset.ids(common)
        if len(ids) != 2:
            return None
        x = [self.shapes.x[label] if self.shapes.px[label] else self.middle for label in ids]
        return (ids[0], ids[1]) if x[0] <= x[1] else (ids[1], ids[0])

    @cached_property
    def swapped(self) -> int:
        """Bits of PAIRED, from 1 up: set where the first class of the pair is the right one in the picture."""
        pairs = [(self.pair(common), self.dataset.ids(common)) for common in PAIRED]
        return sum(1 << bit for bit, (pair, ids) in enumerate(pairs) if pair is not None and pair != ids)

    @cached_property
    def middle(self) -> float:
        """x that parts the left from the right: of the nose, or else of the skin, or else of the mask."""
        middle = next((index for name in ("nose", "skin") if (index := self.seen(name)) is not None), None)
        return self.labels.shape[1] / 2 if middle is None else float(self.shapes.x[middle])

    @cached_property
    def eyes(self) -> tuple[int, int] | None:
        """The ids of the left and the right eye, where both are seen."""
        pair = self.pair("eye")
        return pair if pair is not None and all(self.shapes.px[label] for label in pair) else None

    def _is(self, *common: str) -> np.ndarray:
        """(256,) bool, by class id."""
        table = np.zeros(256, bool)
        table[list(self.dataset.ids(*common))] = True
        return table

    @cached_property
    def _face_runs(self) -> np.ndarray:
        """(n,) which runs are of the face."""
        return self._is(*FACE)[self.shapes.runs.label]

    # Where that is in the photograph.

    def _in_photograph(self, x: float, y: float) -> np.ndarray:
        return self.transform @ (x, y, 1.0)

    @cached_property
    def _eye_points(self) -> np.ndarray | None:
        """(2, 2) the centroids of the left and the right eye in the photograph."""
        if self.eyes is None:
            return None
        return np.stack([self._in_photograph(self.shapes.x[eye], self.shapes.y[eye]) for eye in self.eyes])

    @cached_property
    def _chin_distance(self) -> float | None:
        """T."""
        if self._eye_points is None:
            return None
        lowest, runs = self.shapes.bottom[list(self.dataset.ids(*FACE))].max(), self.shapes.runs
        last = self._face_runs & (runs.row == lowest - 1)
        length = runs.length[last]
        x = ((runs.start[last] + runs.end[last]) / 2 * length).sum() / length.sum()
        left, right = self._eye_points
        return math.hypot(*(self._in_photograph(x, lowest) - (left + right) / 2)) or None

    @cached_property
    def eye_dist(self) -> float | None:
        """D."""
        return None if self._eye_points is None else math.hypot(*(self._eye_points[1] - self._eye_points[0])) or None

    @property
    def roll(self) -> float | None:
        if self._eye_points is None:
            return None
        x, y = self._eye_points[1] - self._eye_points[0]
        return math.degrees(math.atan2(y, x))

    @property
    def yaw_proxy(self) -> float | None:
        skin, nose, runs = self.seen("skin"), self.seen("nose"), self.shapes.runs
        if skin is None or nose is None:
            return None
        start, end = runs.start[runs.label == skin], runs.end[runs.label == skin]
        left = (np.clip(self.shapes.x[nose], start, end) - start).sum()
        return float(1 - 2 * left / self.shapes.px[skin])

    @property
    def margin_left(self) -> float | None:
        return self._margin(0, self.eye_dist, from_end=False)

    @property
    def margin_right(self) -> float | None:
        return self._margin(0, self.eye_dist, from_end=True)

    @property
    def margin_above(self) -> float | None:
        return self._margin(1, self._chin_distance, from_end=False)

    @property
    def margin_below(self) -> float | None:
        return self._margin(1, self._chin_distance, from_end=True)

    def _margin(self, axis: int, unit: float | None, *, from_end: bool) -> float | None:
        if unit is None or self._eye_points is None:
            return None
        place = float(self._eye_points[:, axis].mean())
        return (self.size[axis] - place if from_end else place) / unit

    @property
    def head_size(self) -> float | None:
        return None if self._chin_distance is None else self._chin_distance / self.size[1]

    # Open and covered.

    @property
    def eye_open_left(self) -> float | None:
        return None if self.eyes is None else self._opening(self.eyes[0])

    @property
    def eye_open_right(self) -> float | None:
        return None if self.eyes is None else self._opening(self.eyes[1])

    @property
    def mouth_open(self) -> float | None:
        if self._lips is None or self._chin_distance is None:
            return None
        mouth = self.seen("mouth")
        return 0.0 if mouth is None else self._opening(mouth)

    def _opening(self, label: int) -> float | None:
        """The mean height of the class in the photograph, over T.

        Not the height of its box, which a tilt or a stray pixel enlarges: against the renderer's lids and lips that
        correlates less (pipelines/benchmarks/measures.py: 0.73 to 0.80 instead of 0.87 to 0.97).
        """
        if self._chin_distance is None:
            return None
        height = self.shapes.px[label] / (self.shapes.right[label] - self.shapes.left[label])
        return float(height * np.hypot(*self.transform[:, 1])) / self._chin_distance

    @cached_property
    def _lips(self) -> list[int] | None:
        """The ids of the mouth's classes that are seen; None unless both lips are."""
        lips = [self.seen("lip_upper"), self.seen("lip_lower")]
        seen = [label for label in (*lips, self.seen("mouth")) if label is not None]
        return None if None in lips else seen

    @property
    def head_cover(self) -> float | None:
        if not self.dataset.ids("hat") or not self.dataset.ids("cloth"):
            return None
        rows, runs = math.ceil(self.shapes.height * _HEAD_ROWS), self.shapes.runs
        above = runs.row < rows
        covered = runs.length[self._is("hat", "cloth")[runs.label] & above].sum()
        return float(covered) / float(runs.length[above].sum()) if above.any() else None

    @property
    def hair_over_face(self) -> float | None:
        hair, runs = self.dataset.ids("hair"), self.shapes.runs
        if not hair or not self._face_runs.any():
            return None
        of_face = self._face_runs
        left, right = np.full(self.shapes.height, self.shapes.width), np.zeros(self.shapes.height, int)
        np.minimum.at(left, runs.row[of_face], runs.start[of_face])
        np.maximum.at(right, runs.row[of_face], runs.end[of_face])
        row, start, end = (values[runs.label == hair[0]] for values in (runs.row, runs.start, runs.end))
        over = np.maximum(np.minimum(end, right[row]) - np.maximum(start, left[row]), 0).sum()
        return float(over) / float(np.maximum(right - left, 0).sum())

    @property
    def eyes_covered(self) -> float | None:
        return self._covered(self._eye_boxes)

    @property
    def mouth_covered(self) -> float | None:
        return None if self._lips is None else self._covered([self._box(self._lips, 0)])

    @cached_property
    def _eye_boxes(self) -> list[tuple[slice, slice]]:
        """The box of each eye, grown; none unless both eyes are seen."""
        if self.eyes is None:
            return []
        x, y = (values[list(self.eyes)] for values in (self.shapes.x, self.shapes.y))
        grown = math.floor(math.hypot(x[1] - x[0], y[1] - y[0]) * _EYE_MARGIN)
        return [self._box([eye], grown) for eye in self.eyes]

    def _box(self, labels: list[int], grown: int) -> tuple[slice, slice]:
        """Rows and columns of the box around classes, within the mask."""
        top, left = (int(values[labels].min()) - grown for values in (self.shapes.top, self.shapes.left))
        bottom, right = (int(values[labels].max()) + grown for values in (self.shapes.bottom, self.shapes.right))
        return slice(max(top, 0), bottom), slice(max(left, 0), right)

    def _covered(self, boxes: list[tuple[slice, slice]]) -> float | None:
        if not boxes:
            return None
        labels = np.concatenate([self.inside[box].ravel() for box in boxes])
        return float(self._is(*_COVERS)[labels[labels != masks.OUTSIDE]].mean())

    # Light and focus, in grey levels of ITU-R 601-2 luma.

    @cached_property
    def _luma(self) -> Image.Image | None:
        return None if self.pixels is None else Image.fromarray(self.pixels).convert("L")

    @cached_property
    def _skin_light(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(256,) pixels of skin by grey level, left of the middle and right of it."""
        skin = self.seen("skin")
        if skin is None or self._luma is None:
            return None
        mask = Image.fromarray((self.inside == skin).view(np.uint8) * np.uint8(255))
        x, (width, height) = math.ceil(self.middle - 0.5), mask.size  # columns whose middle is left of it
        halves = ((0, 0, x, height), (x, 0, width, height))
        left, right = (np.array(self._luma.crop(half).histogram(mask.crop(half))) for half in halves)
        return left, right

    @cached_property
    def _skin_levels(self) -> np.ndarray | None:
        return None if self._skin_light is None else self._skin_light[0] + self._skin_light[1]

    @property
    def skin_light(self) -> float | None:
        return None if self._skin_levels is None else _mean(self._skin_levels)

    @property
    def skin_light_spread(self) -> float | None:
        if self._skin_levels is None:
            return None
        squares = float(self._skin_levels @ _LEVELS**2 / self._skin_levels.sum())
        return math.sqrt(max(0.0, squares - _mean(self._skin_levels) ** 2))

    @property
    def skin_dark(self) -> float | None:
        levels = self._skin_levels
        return None if levels is None else float(levels[: _DARK + 1].sum() / levels.sum())

    @property
    def skin_bright(self) -> float | None:
        levels = self._skin_levels
        return None if levels is None else float(levels[_BRIGHT:].sum() / levels.sum())

    @property
    def skin_light_balance(self) -> float | None:
        if self._skin_light is None or self.seen("nose") is None or not all(half.any() for half in self._skin_light):
            return None
        left, right = map(_mean, self._skin_light)
        return (right - left) / (right + left) if right + left else None

    @property
    def sharpness(self) -> float | None:
        if self._luma is None or not self._eye_boxes:
            return None
        luma = np.asarray(self._luma)
        edges = [_laplacian(luma[box].astype(np.float32)).ravel() for box in self._eye_boxes]
        values = np.concatenate(edges)
        return float(values.var()) if values.size else None


def _mean(levels: np.ndarray) -> float:
    return float(levels @ _LEVELS / levels.sum())


def _laplacian(grey: np.ndarray) -> np.ndarray:
    """(h, w) -> (h - 2, w - 2): the four neighbours of each inner pixel less four times itself."""
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return around - 4 * grey[1:-1, 1:-1]
