"""The table of statistics: everything that is measured on a mask, each said once.

An entry gives a column of `stats`, or one column per class.  Schema, reserved names, Parquet metadata, the columns of
the Ray Data function `FaceParser` and the table in docs/output.md are derived from `STATISTICS`: a new statistic is one
more entry.

K: classes; H, W: height and width of the mask in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image


@dataclass(frozen=True)
class Mask:
    """What statistics are measured on: `labels` (H, W) uint8 class ids below `n_classes`, or `masks.OUTSIDE` where the
    crop does not reach."""

    labels: np.ndarray
    n_classes: int

    @cached_property
    def class_pixels(self) -> np.ndarray:
        """(K,) int32 pixels of each class.

        Pillow counts an 8-bit image in 0.1 ms; numpy's bincount, which widens to int64 first, takes 1 ms at 512 x 512.
        """
        return np.array(Image.fromarray(self.labels).histogram()[: self.n_classes], dtype=np.int32)

    @cached_property
    def pixels(self) -> int:
        """Pixels of all classes, background included."""
        return int(self.class_pixels.sum())


@dataclass(frozen=True)
class Statistic:
    """`name` is the column, or with `per_class` the prefix of a column per class (`px_` gives `px_hair`).  `measure`
    returns a number, or with `per_class` (K,) numbers."""

    name: str
    type: pa.DataType
    meaning: str
    measure: Callable[[Mask], Any]
    per_class: bool = False

    def columns(self, class_names: Sequence[str]) -> list[str]:
        """The columns for a class table."""
        return [f"{self.name}{name}" for name in class_names] if self.per_class else [self.name]

    @property
    def shown(self) -> str:
        """The name as documentation has it."""
        return f"{self.name}<class>" if self.per_class else self.name


STATISTICS: tuple[Statistic, ...] = (
    Statistic(
        "mask_pixels",
        pa.int32(),
        "pixels of the mask: R x R; with --mask-space image the pixels of the image that the crop covers",
        lambda mask: mask.pixels,
    ),
    Statistic("px_", pa.int32(), "pixels of the class in the mask", lambda mask: mask.class_pixels, per_class=True),
    Statistic(
        "frac_",
        pa.float32(),
        "px_<class> / mask_pixels, 0 to 1",
        lambda mask: mask.class_pixels / mask.pixels,
        per_class=True,
    ),
)


def measured(labels: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """(H, W) uint8 class ids -> the value of every column of every statistic."""
    mask, values = Mask(labels, len(class_names)), {}
    for statistic in STATISTICS:
        found = statistic.measure(mask)
        values |= zip(statistic.columns(class_names), found.tolist() if statistic.per_class else [found], strict=True)
    return values


def columns(masks: Sequence[np.ndarray | None], class_names: Sequence[str]) -> dict[str, pa.Array]:
    """Masks (H, W) uint8 -> every column of every statistic, with a value per mask; null where there is none."""
    rows = [{} if mask is None else measured(mask, class_names) for mask in masks]
    every = fields(class_names, per_class=False) + fields(class_names, per_class=True)
    return {field.name: pa.array([row.get(field.name) for row in rows], field.type) for field in every}


def fields(class_names: Sequence[str], *, per_class: bool) -> list[pa.Field]:
    """The columns of the statistics that have one per class, or of the others."""
    chosen = [statistic for statistic in STATISTICS if statistic.per_class == per_class]
    return [pa.field(column, each.type) for each in chosen for column in each.columns(class_names)]
