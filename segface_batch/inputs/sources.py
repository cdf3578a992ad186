"""What there is to annotate: the pictures of a folder or a manifest, streamed in a stable order.

A folder is searched here and not by fsspec or Ray, which follow symbolic links (a loop gives each picture forty
times), open FIFOs and hold the whole listing in memory.
"""

from __future__ import annotations

import contextlib
import csv
import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segface_batch.inputs.decode import SUFFIXES

#: Columns of a manifest that are read.
COLUMNS = ("uri", "image_id", "landmarks")


@dataclass(frozen=True)
class Picture:
    """A picture to annotate.

    `landmarks` are x0, y0, x1, y1, ... in pixels of the upright picture; None where the source has none, NaN
    where it has something else.  `n_bytes` is 0 where the size is not known before reading.
    """

    image_id: str
    uri: str
    landmarks: list[float] | None = None
    n_bytes: int = 0


def pictures(source: str, skipped: Counter[str], *, need_landmarks: bool = False) -> Iterator[Picture]:
    """Every picture of a folder, by path, or of a manifest, as listed; counts in `skipped` what a folder has besides.

    ValueError for a manifest without the columns it needs; PermissionError for a folder that cannot be listed.
    """
    path = Path(os.path.abspath(source))
    if path.is_dir():
        return _folder(str(path), str(path), skipped)
    rows = {".txt": _lines, ".csv": _csv_rows, ".parquet": _parquet_rows}[path.suffix.lower()](path)
    return _listed(path, rows, need_landmarks)


def _folder(folder: str, root: str, skipped: Counter[str]) -> Iterator[Picture]:
    with os.scandir(folder) as children:
        entries = sorted(children, key=lambda entry: entry.name)
    for entry in entries:
        suffix = os.path.splitext(entry.name)[1].lower()
        if entry.name.startswith("."):
            skipped["hidden"] += 1
        elif entry.is_symlink():
            skipped["symbolic links"] += 1
        elif entry.is_dir():
            yield from _folder(entry.path, root, skipped)
        elif not entry.is_file():
            skipped["pipes or devices"] += 1
        elif suffix not in SUFFIXES:
            skipped[f"{_text(suffix)} files" if suffix else "files without suffix"] += 1
        else:
            image_id = _text(os.path.relpath(entry.path, root))
            yield Picture(image_id, _uri(entry.path), n_bytes=entry.stat().st_size)


def _text(path: str) -> str:
    """The path as text that Parquet can hold: bytes that are no UTF-8 become \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _uri(path: str) -> str:
    """The path itself, or a file:// URL (which keeps every byte) where it is no UTF-8."""
    return path if _text(path) == path else Path(path).as_uri()


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            if line.strip():
                yield {"uri": line.rstrip("\r\n")}


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file)


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        columns = [name for name in COLUMNS if name in file.schema_arrow.names]
        for batch in file.iter_batches(batch_size=1024, columns=columns):
            yield from batch.to_pylist()


def _listed(path: Path, rows: Iterator[dict[str, Any]], need_landmarks: bool) -> Iterator[Picture]:
    for number, row in enumerate(rows, start=1):
        if number == 1:
            _check_columns(path, row, need_landmarks)
        uri = row["uri"]
        if not uri:
            raise ValueError(f"{path}: row {number} has no uri")
        place = uri if "://" in uri else str(path.parent / uri)
        n_bytes = 0
        if "://" not in place:
            with contextlib.suppress(OSError):
                n_bytes = os.stat(place).st_size
        yield Picture(row.get("image_id") or uri, place, _numbers(row.get("landmarks")), n_bytes)


def _check_columns(path: Path, row: dict[str, Any], need_landmarks: bool) -> None:
    wanted = ("uri", "landmarks") if need_landmarks else ("uri",)
    missing = [name for name in wanted if name not in row]
    if missing:
        raise ValueError(
            f"{path} has no column '{missing[0]}' (it has: {', '.join(map(str, row))}); "
            "a manifest needs 'uri', and 'landmarks' for LaPa and Helen checkpoints; 'image_id' is optional"
        )


def _numbers(landmarks: str | list[Any] | None) -> list[float] | None:
    """Landmarks of a cell, "x0 y0 x1 y1 ..." or a list, flat or of pairs; NaN where they are no pairs of numbers."""
    if landmarks is None or landmarks == "":
        return None
    values = landmarks.split() if isinstance(landmarks, str) else landmarks
    try:
        numbers = [float(number) for value in values for number in (value if isinstance(value, list) else [value])]
    except (TypeError, ValueError):
        numbers = []
    return numbers if numbers and len(numbers) % 2 == 0 else [math.nan, math.nan]
