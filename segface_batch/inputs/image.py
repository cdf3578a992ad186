"""An image of an input before it is read: its names, and where its bytes are."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple


class Cell(NamedTuple):
    """Where in a Parquet file: the row of a row group in the leaf column of that path; the file has `file_bytes`."""

    column: str
    group: int
    row: int
    file_bytes: int


class SourceImage(NamedTuple):
    """An image to annotate.

    The bytes are those of `place` (None: of `uri`): the whole of it, `n_bytes` from `offset` on in a tar file, or a
    cell of a Parquet file.  `landmarks` are x0, y0, x1, y1, ... in pixels of the upright image, or, two points, the
    corners of the face's box; None where the source has none, NaN where it has something else.  `n_bytes` is 0 where
    the size is not known before reading; of a cell it is the mean of its row group.  `error` says why there is nothing
    to read, where that is known already.
    """

    image_id: str
    uri: str
    landmarks: list[float] | None = None
    n_bytes: int = 0
    place: str | None = None
    offset: int | None = None
    cell: Cell | None = None
    error: str | None = None
    carried: tuple[Any, ...] = ()


def printable(name: str) -> str:
    """A name of a file or tar member as text that Parquet can hold: bytes that are no UTF-8 become \\xNN."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "backslashreplace")


#: The columns that say where the face of an image is; the first that a row has counts.
LANDMARKS, BOX = "landmarks", "box"


def points_of(row: Mapping[str, Any]) -> list[float] | None:
    """`landmarks` of a row, else the corners of its `box`, which is left, top, right, bottom."""
    points = _pairs(row.get(LANDMARKS))
    if points is not None or (box := _pairs(row.get(BOX))) is None:
        return points
    return box if len(box) == 4 else [math.nan] * 4


def _pairs(cell: str | list[Any] | None) -> list[float] | None:
    """Numbers of a cell, "x0 y0 x1 y1 ..." or a list, flat or of pairs; NaN where they are no pairs of numbers."""
    if cell is None or cell == "":
        return None
    values = cell.split() if isinstance(cell, str) else cell
    try:
        numbers = [float(number) for value in values for number in (value if isinstance(value, list) else [value])]
    except (TypeError, ValueError):
        numbers = []
    return numbers if numbers and len(numbers) % 2 == 0 else [math.nan, math.nan]
