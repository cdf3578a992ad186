"""A manifest lists images by place: .txt (a place a line), or .csv or .parquet with a column `uri`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from segface_batch import storage
from segface_batch.inputs import named, parquet
from segface_batch.inputs.image import SourceImage, points_of, printable
from segface_batch.storage import ranged
from segface_batch.storage.redact import redacted

#: The manifest's own columns, beside those that place faces and those that are carried.
COLUMNS = ("uri", "image_id")

#: Bytes of one request for lines.
_READ_BYTES = 4 * 2**20

#: A longer line or cell is no path, no caption and no list of landmarks.  It bounds the memory that damage can take.
_LONGEST = 16 * 2**20

#: UTF-16's byte order marks, as `_open_text` decodes them.
_UTF_16 = ("\udcff\udcfe", "\udcfe\udcff")


def read_columns(place: str, suffix: str, n_bytes: int) -> pa.Schema:
    """The columns of a manifest.  All are text, except in a Parquet file, which has types."""
    if suffix == ".parquet":
        return parquet.open_file(place, n_bytes).schema_arrow
    names = ["uri"]
    if suffix == ".csv":
        with _open_text(place, n_bytes) as file:
            names = _header(_csv_rows(file, place))
    return pa.schema([pa.field(name, pa.string()) for name in names])


def list_images(
    place: str,
    suffix: str,
    n_bytes: int,
    *,
    placed_by: Sequence[str],
    carried: Sequence[str],
    folder: str | None = None,
) -> Iterator[SourceImage]:
    """The manifest's images in its order.  Relative paths start at `folder`, by default the manifest's own; ids are
    `image_id`, or else `uri`.

    A row that names no image (no uri, one that nothing can be called, more cells than columns) gives one with the error
    `bad_uri` and the number of the row, from 1 on.  ValueError for a manifest without a column `uri`, or, unless
    `placed_by` is empty, without any of these columns, and for one that is damaged.
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
    names = [name for name in dict.fromkeys((*COLUMNS, *placed_by, *carried)) if name in has]
    parquet.check_columns(found, names, place)
    if not parquet.is_text(found.field("uri").type):
        raise ValueError(f"{shown}: column 'uri' is {found.field('uri').type}; make it text")
    folder = storage.folder_of(place) if folder is None else folder
    read_rows = {".txt": _read_lines, ".csv": _read_csv, ".parquet": _read_parquet}[suffix]
    for number, row in enumerate(read_rows(place, n_bytes, names), start=1):
        uri = parquet.text(row.get("uri"))
        if uri is None:
            image = SourceImage(f"{storage.name_of(place)}/{number}", f"{shown}#{number}", error="bad_uri")
        else:
            image = named.find(uri, folder)
        yield image._replace(
            image_id=printable(parquet.text(row.get("image_id")) or image.image_id),
            landmarks=points_of(row),
            carried=tuple(printable(value) if isinstance(value, str) else value for value in map(row.get, carried)),
        )


def _open_text(place: str, n_bytes: int) -> io.TextIOWrapper:
    """The text of a manifest; bytes that are not UTF-8 become surrogates, as in the names of files."""
    file = ranged.open_ranged(place, n_bytes, _READ_BYTES)
    return io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _lines(file: io.TextIOWrapper, place: str) -> Iterator[str]:
    """The lines with their ends.  ValueError, with a hint, for what is no text in UTF-8."""
    while line := file.readline(_LONGEST):
        if line.startswith(_UTF_16):
            raise ValueError(f"{redacted(place)} is in UTF-16; save it as UTF-8")
        if len(line) == _LONGEST:
            raise ValueError(f"{redacted(place)} has a line of more than {_LONGEST:,} characters; is it a manifest?")
        yield line


def _read_lines(place: str, n_bytes: int, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    with _open_text(place, n_bytes) as file:
        for line in _lines(file, place):
            if line.strip():
                yield {"uri": line.rstrip("\r\n")}


def _read_csv(place: str, n_bytes: int, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Empty cells are None.  A row that cannot be told apart into its cells has none."""
    with _open_text(place, n_bytes) as file:
        rows = _csv_rows(file, place)
        header = _header(rows)
        for row in rows:
            # With a comma that has no quotes around it, which cell is which?
            cells = [] if row is None or any(row[len(header) :]) else row
            yield {name: cell or None for name, cell in zip(header, cells, strict=False)}


def _header(rows: Iterator[list[str] | None]) -> list[str]:
    return list(map(printable, next(rows, None) or []))


def _csv_rows(file: io.TextIOWrapper, place: str) -> Iterator[list[str] | None]:
    """The cells of each row that has any; None for a row that is not CSV.

    ValueError, with a hint, where a quote has no end on its line: the rows below would be taken for a part of its cell.
    """
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST))  # of the process
    rows = csv.reader(_lines(file, place), strict=True)
    row: list[str] | None = []
    while True:
        start = rows.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            if rows.line_num > start:
                where = f"{redacted(place)} is not CSV from line {start} on"
                raise ValueError(f"{where} ({error}); check its quotes") from None
            row = None
        if row is None or any(row):
            yield row


def _read_parquet(place: str, n_bytes: int, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    file = parquet.open_file(place, n_bytes)
    with parquet.finding_damage(place):
        for batch in file.iter_batches(1024, columns=list(names), use_threads=False):
            columns = [parquet.values_of(pa.chunked_array([batch.column(name)])) for name in names]
            yield from (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))
