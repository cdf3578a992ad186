"""The table of statistics: everything that is measured on a face, each said once.

An entry gives a column of `stats` or `shapes`, or one column per class.  Schema, reserved names, Parquet metadata, the
columns of the Ray Data function `FaceParser` and the table in docs/statistics.md are derived from `STATISTICS`: a new
statistic is one more entry.

K: classes; H, W: height and width of the mask in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from segface_batch.catalog import FACE, PAIRED
from segface_batch.images.confidence import LOW_MARGIN, Confidence
from segface_batch.images.measures import CroppedFace
from segface_batch.images.shapes import Shapes

#: The tables that statistics are columns of.
STATS, SHAPES = "stats", "shapes"


@dataclass(frozen=True)
class Mask:
    """What statistics are measured on.

    `labels` (H, W) uint8 is the mask as it is stored: class ids, or `masks.OUTSIDE` where the crop does not reach;
    `face` is the same face as the network saw it, and `confidence` the network's, None where it tells none.
    """

    labels: np.ndarray
    face: CroppedFace
    confidence: Confidence | None = None

    @cached_property
    def shapes(self) -> Shapes:
        is_crop = self.labels is self.face.inside
        return self.face.shapes if is_crop else Shapes(self.labels, len(self.face.dataset.classes))

    @property
    def class_pixels(self) -> np.ndarray:
        """(K,) pixels of each class."""
        return self.shapes.px

    @cached_property
    def pixels(self) -> int:
        """Pixels of all classes, background included."""
        return int(self.class_pixels.sum())

    def where_seen(self, values: np.ndarray) -> np.ndarray:
        """(K,) values of the classes, masked where a class has no pixel."""
        return np.ma.array(values, mask=self.class_pixels == 0)


@dataclass(frozen=True)
class Statistic:
    """`name` is the column, or with `per_class` the prefix of a column per class (`px_` gives `px_hair`).

    `measure` returns a number, or with `per_class` (K,) numbers; None, NaN and masked ones are null.  `meaning` has the
    formula, `unit` its unit or range, and `source` whose definition it follows.
    """

    name: str
    type: pa.DataType
    unit: str
    meaning: str
    measure: Callable[[Mask], Any]
    per_class: bool = False
    table: str = STATS
    source: str = ""

    def columns(self, class_names: Sequence[str]) -> list[str]:
        """The columns for a class table."""
        return [f"{self.name}{name}" for name in class_names] if self.per_class else [self.name]

    @property
    def shown(self) -> str:
        """The name as documentation has it."""
        return f"{self.name}<class>" if self.per_class else self.name


_INT, _FLOAT = pa.int32(), pa.float32()

_ACTIVE_LEARNING = "Lightly's Active Learning Scorers (least confidence, margin, entropy)"


def _measure(name: str, unit: str, meaning: str, source: str = "") -> Statistic:
    """The statistic that is a property of `CroppedFace`."""
    return Statistic(name, _FLOAT, unit, meaning, lambda mask: getattr(mask.face, name), source=source)


def _shape(name: str, type: pa.DataType, unit: str, meaning: str, of: Callable[[Mask], Any]) -> Statistic:
    return Statistic(name, type, unit, meaning, of, per_class=True, table=SHAPES)


STATISTICS: tuple[Statistic, ...] = (
    Statistic(
        "mask_pixels",
        _INT,
        "pixels",
        "size of the mask: R x R; with --mask-space image the pixels of the image that the crop covers",
        lambda mask: mask.pixels,
    ),
    Statistic(
        "face_px",
        _INT,
        "pixels",
        f"pixels of the face in the mask: {', '.join(FACE)}; with it px_<class> becomes a share of the face",
        lambda mask: int(mask.class_pixels[list(mask.face.dataset.ids(*FACE))].sum()),
    ),
    # How sure the network is.
    Statistic(
        "confidence",
        _FLOAT,
        "0 to 1",
        "mean of the best class's probability over the pixels that are not background",
        lambda mask: mask.confidence and mask.confidence.overall,
        source=_ACTIVE_LEARNING,
    ),
    Statistic(
        "low_px",
        _INT,
        "pixels",
        f"pixels of the crop (R x R) whose margin, the best probability less the second, is under {LOW_MARGIN}",
        lambda mask: mask.confidence and mask.confidence.low_px,
        source=_ACTIVE_LEARNING,
    ),
    Statistic(
        "entropy",
        _FLOAT,
        "0 to 1",
        "mean over all pixels of -sum(p ln p) / ln K, for the probabilities p of the K classes",
        lambda mask: mask.confidence and mask.confidence.entropy,
        source=_ACTIVE_LEARNING,
    ),
    # Where the face is, and how it is turned.
    _measure(
        "eye_dist",
        "pixels of the image",
        "D, the distance of the eyes' centroids",
        "OFIQ InterEyeDistance, without its correction for yaw",
    ),
    _measure(
        "roll",
        "degrees, -180 to 180",
        "angle of the line from the left eye's centroid to the right one's; positive where the right eye is lower",
    ),
    _measure(
        "yaw_proxy",
        "-1 to 1",
        "(right - left) / (right + left), the pixels of skin on both sides of the nose's centroid; positive where more "
        "skin is on the right",
    ),
    _measure(
        "margin_left",
        "D",
        "distance of the middle between the eyes from the left edge of the image, over D",
        "OFIQ CropOfTheFaceImage; wanted there: 0.9",
    ),
    _measure("margin_right", "D", "the same from the right edge", "the same; 0.9"),
    _measure(
        "margin_above",
        "T",
        "the same from the upper edge, over T, the distance from there to the chin (the lowest pixel of the face)",
        "the same; 1.4",
    ),
    _measure("margin_below", "T", "the same from the lower edge, over T", "the same; 1.8"),
    _measure("head_size", "share of the image's height", "T over the height of the image", "OFIQ HeadSize; ideal 0.45"),
    # Open and covered.
    _measure(
        "eye_open_left",
        "T",
        "mean height of the left eye (its pixels over the width of its box), over T",
        "OFIQ EyesOpen, from areas",
    ),
    _measure("eye_open_right", "T", "the same of the right eye", "the same"),
    _measure(
        "mouth_open",
        "T",
        "mean height of the inside of the mouth, over T; 0 where both lips are seen and nothing between them",
        "OFIQ MouthClosed, from areas",
    ),
    _measure(
        "head_cover",
        "0 to 1",
        "share of hat and cloth in the upper 49 % of the crop",
        "OFIQ NoHeadCoverings: 196 of 400 rows of its aligned crop",
    ),
    _measure(
        "hair_over_face",
        "0 to 1",
        "share of hair between the first and the last pixel of the face in each row of the crop",
    ),
    _measure(
        "eyes_covered",
        "0 to 1",
        "share of background, hair, hat and cloth in the boxes of both eyes, grown by D/20 on each side",
        "OFIQ EyesVisible, which has a network of its own for what covers",
    ),
    _measure(
        "mouth_covered",
        "0 to 1",
        "share of background, hair, hat and cloth in the box around lips and mouth",
        "OFIQ MouthOcclusionPrevention, likewise",
    ),
    # Light and focus, on the crop.
    _measure("skin_light", "grey levels, 0 to 255", "mean luma (ITU-R 601-2) of the skin"),
    _measure("skin_light_spread", "grey levels", "standard deviation of the skin's luma"),
    _measure("skin_dark", "0 to 1", "share of the skin with a luma of at most 5"),
    _measure("skin_bright", "0 to 1", "share of the skin with a luma of at least 250"),
    _measure(
        "skin_light_balance",
        "-1 to 1",
        "(right - left) / (right + left), the mean luma of the skin on both sides of the nose's centroid",
    ),
    _measure(
        "sharpness",
        "grey levels squared",
        "variance of the Laplacian (four neighbours) of the luma in the eyes' boxes, grown as for eyes_covered; the "
        "crop has R x R pixels, so enlarged faces are less sharp",
    ),
    # Per class.
    Statistic("px_", _INT, "pixels", "pixels of the class in the mask", lambda mask: mask.class_pixels, per_class=True),
    Statistic(
        "frac_",
        _FLOAT,
        "0 to 1",
        "px_<class> / mask_pixels",
        lambda mask: mask.class_pixels / (mask.pixels or math.nan),
        per_class=True,
    ),
    Statistic(
        "conf_",
        _FLOAT,
        "0 to 1",
        "mean probability of the class over the pixels that it has",
        lambda mask: mask.confidence and mask.confidence.best,
        per_class=True,
        source=_ACTIVE_LEARNING,
    ),
    Statistic(
        "margin_",
        _FLOAT,
        "0 to 1",
        "mean over the same pixels of the best probability less the second",
        lambda mask: mask.confidence and mask.confidence.margin,
        per_class=True,
        source=_ACTIVE_LEARNING,
    ),
    # Shapes.
    Statistic("mask_width", _INT, "pixels", "width of the mask", lambda mask: mask.shapes.width, table=SHAPES),
    Statistic("mask_height", _INT, "pixels", "height of the mask", lambda mask: mask.shapes.height, table=SHAPES),
    Statistic(
        "swapped",
        pa.uint8(),
        "bits",
        "set where the first class of a pair is the right one as seen: "
        + ", ".join(f"{1 << bit} {name}s" for bit, name in enumerate(PAIRED)),
        lambda mask: mask.face.swapped,
        table=SHAPES,
    ),
    _shape(
        "left_",
        _INT,
        "pixels of the mask",
        "left edge of the class's box",
        lambda mask: mask.where_seen(mask.shapes.left),
    ),
    _shape("top_", _INT, "pixels of the mask", "top edge of it", lambda mask: mask.where_seen(mask.shapes.top)),
    _shape(
        "right_",
        _INT,
        "pixels of the mask",
        "right edge of it (exclusive)",
        lambda mask: mask.where_seen(mask.shapes.right),
    ),
    _shape(
        "bottom_",
        _INT,
        "pixels of the mask",
        "bottom edge of it (exclusive)",
        lambda mask: mask.where_seen(mask.shapes.bottom),
    ),
    _shape(
        "x_",
        _FLOAT,
        "pixels of the mask",
        "centroid of the class, from the left edge of the mask",
        lambda mask: mask.shapes.x,
    ),
    _shape("y_", _FLOAT, "pixels of the mask", "the same from the top", lambda mask: mask.shapes.y),
    _shape(
        "components_",
        _INT,
        "pieces",
        "pieces that the class is in, with pixels joined across edges and corners",
        lambda mask: mask.shapes.components,
    ),
    _shape("largest_", _INT, "pixels", "pixels of the largest piece", lambda mask: mask.shapes.largest),
    _shape(
        "sides_",
        pa.uint8(),
        "bits",
        "sides of the mask that the class touches: 1 left, 2 top, 4 right, 8 bottom",
        lambda mask: mask.shapes.sides,
    ),
)


def measured(mask: Mask) -> dict[str, Any]:
    """The value of every column of every statistic, None for null."""
    class_names, values = mask.face.dataset.class_names, {}
    for statistic in STATISTICS:
        columns, found = statistic.columns(class_names), statistic.measure(mask)
        if found is None:
            found = [None] * len(columns)
        elif statistic.per_class:
            found = found.tolist()
        else:
            found = [found]
        values |= zip(columns, map(_null_for_nan, found), strict=True)
    return values


def _null_for_nan(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def columns(rows: Sequence[Mapping[str, Any] | None], class_names: Sequence[str]) -> dict[str, pa.Array]:
    """Every column of every statistic, with a value per row of `measured`; null where there is none."""
    every = [
        field
        for table in (STATS, SHAPES)
        for per_class in (False, True)
        for field in fields(class_names, table, per_class=per_class)
    ]
    return {field.name: pa.array([row and row.get(field.name) for row in rows], field.type) for field in every}


def fields(class_names: Sequence[str], table: str, *, per_class: bool) -> list[pa.Field]:
    """The columns of a table's statistics that have one per class, or of the others."""
    chosen = [each for each in STATISTICS if each.per_class == per_class and each.table == table]
    return [pa.field(column, each.type) for each in chosen for column in each.columns(class_names)]
