"""An image of an input before it is read: its names, and where its bytes lie."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any, NamedTuple


class Cell(NamedTuple):
    """A place in a Parquet file of `file_bytes`: row group, row within it, and dotted path of the leaf column."""

    column: str
    group: int
    row: int
    file_bytes: int


class SourceImage(NamedTuple):
    """An image to annotate.

    Its bytes are the whole of `place` (None: of `uri`), or the `n_bytes` from `offset` on in a tar file, or a cell of a
    Parquet file.  `landmarks` are x0, y0, x1, y1, ... in pixels of the upright image; two points are the corners of the
    face's box.  They are None where the source has none and NaN where it has something invalid.  `n_bytes` is 0 where
    the size is unknown before reading, and the mean of the row group for a cell.  `error` is a word of `errors.ERRORS`
    where it is already known that there is nothing to read.  `carried` are the values of the carried columns.
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
    """The name of a file or tar member as text for Parquet: bytes that are not UTF-8 become \\xNN."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "backslashreplace")


#: The columns that place the face in an image.  The first that has a value in a row counts.
LANDMARKS, BOX = "landmarks", "box"


def points_of(row: Mapping[str, Any]) -> list[float] | None:
    """The `landmarks` of a row as x0, y0, ..., or else the corners of its `box` (left, top, right, bottom)."""
    points = _pairs(row.get(LANDMARKS))
    if points is not None or (box := _pairs(row.get(BOX))) is None:
        return points
    return box if len(box) == 4 else [math.nan] * 4


def _pairs(cell: str | bytes | list[Any] | None) -> list[float] | None:
    """The numbers of a cell: "x0 y0 x1 y1 ...", a flat list or a list of pairs.  NaN where it has anything else."""
    if cell is None or cell in ("", b""):
        return None
    values = cell.split() if isinstance(cell, str | bytes) else cell
    try:
        numbers = [float(number) for value in values for number in (value if isinstance(value, list) else [value])]
    except (TypeError, ValueError, OverflowError):
        numbers = []
    return numbers if numbers and len(numbers) % 2 == 0 else [math.nan, math.nan]
