"""A manifest lists images by place: .txt (a place a line), or .csv or .parquet with a column `uri`."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from segface_batch import storage
from segface_batch.inputs import parquet
from segface_batch.inputs.image import SourceImage, points_of
from segface_batch.storage import ranged
from segface_batch.storage.redact import redacted

#: The manifest's own columns, beside those that place faces and those that are carried.
COLUMNS = ("uri", "image_id")

#: Bytes of one request for lines.
_READ_BYTES = 4 * 2**20


def read_columns(place: str, suffix: str, n_bytes: int) -> pa.Schema:
    """The columns of a manifest.  All are text, except in a Parquet file, which has types."""
    if suffix == ".parquet":
        return parquet.open_file(place, n_bytes).schema_arrow
    names = ["uri"]
    if suffix == ".csv":
        with _open_text(place, n_bytes) as file, _refusing_damage(place):
            names = next(csv.reader(file), [])
    return pa.schema([pa.field(name, pa.string()) for name in names])


def list_images(
    place: str, suffix: str, n_bytes: int, *, placed_by: Sequence[str], carried: Sequence[str]
) -> Iterator[SourceImage]:
    """The manifest's images in its order.  Relative paths start at the manifest's folder; ids are `image_id`, or else
    `uri`.

    ValueError for a manifest without a column `uri`, or, unless `placed_by` is empty, without any of these columns, and
    for a row without a `uri`.
    """
    shown = redacted(place)
    found = read_columns(place, suffix, n_bytes)
    has = found.names
    for wanted in (("uri",), placed_by):
        if wanted and not set(wanted) & set(has):
            raise ValueError(
                f"{shown} has no column {' or '.join(map(repr, wanted))} (it has: {', '.join(has) or 'none'}); a "
                "manifest needs 'uri', 'landmarks' for LaPa and Helen checkpoints, and 'landmarks' or 'box' for "
                "--faces given; 'image_id' is optional"
            )
    if not parquet.is_text(found.field("uri").type):
        raise ValueError(f"{shown}: column 'uri' is {found.field('uri').type}; make it text")
    folder = place.partition("?")[0].rpartition("/")[0]
    read_rows = {".txt": _read_lines, ".csv": _read_csv, ".parquet": _read_parquet}[suffix]
    names = [name for name in dict.fromkeys((*COLUMNS, *placed_by, *carried)) if name in has]
    for number, row in enumerate(read_rows(place, n_bytes, names), start=1):
        uri = row["uri"]
        if not uri:
            raise ValueError(f"{shown}: row {number} has no uri")
        yield _find_image(row, uri, folder, carried)


def _find_image(row: dict[str, Any], uri: str, folder: str, carried: Sequence[str]) -> SourceImage:
    """The image of a row, with the size of a local file that exists."""
    here = uri if storage.is_url(uri) or uri.startswith("/") else f"{folder}/{uri}"
    size = 0
    if not storage.is_url(here):
        with contextlib.suppress(OSError):
            size = os.stat(here).st_size
    image_id = row.get("image_id")
    shown = redacted(here)
    return SourceImage(
        redacted(uri) if image_id is None or image_id == "" else str(image_id),
        shown,
        points_of(row),
        size,
        None if shown == here else here,
        carried=tuple(row.get(name) for name in carried),
    )


def _open_text(place: str, n_bytes: int) -> io.TextIOWrapper:
    return io.TextIOWrapper(ranged.open_ranged(place, n_bytes, _READ_BYTES), encoding="utf-8-sig", newline="")


def _read_lines(place: str, n_bytes: int, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    with _open_text(place, n_bytes) as file, _refusing_damage(place):
        for line in file:
            if line.strip():
                yield {"uri": line.rstrip("\r\n")}


def _read_csv(place: str, n_bytes: int, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Empty cells are None."""
    with _open_text(place, n_bytes) as file, _refusing_damage(place):
        for row in csv.DictReader(file):
            yield {name: row[name] or None for name in names}


def _read_parquet(place: str, n_bytes: int, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    for batch in parquet.open_file(place, n_bytes).iter_batches(1024, columns=list(names), use_threads=False):
        yield from batch.to_pylist()


@contextlib.contextmanager
def _refusing_damage(place: str) -> Iterator[None]:
    """ValueError, with a hint, for text that is not UTF-8 or not CSV."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{redacted(place)} is not UTF-8 ({error.reason}); save it as UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"{redacted(place)} is not CSV ({error}); check its quotes") from None
