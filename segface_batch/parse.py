"""The parser actor: a unit of encoded pictures becomes a unit of rows.

Threads decode ahead of the network and encode behind it inside one process, so that decoded pictures never cross
Ray's object store and the device stays busy (98.9 % in a trial, 58-92 % with separate stages).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from segface_batch import catalog, storage
from segface_batch.inputs.decode import DecodeError, decode
from segface_batch.inputs.fetch import nest, unnest
from segface_batch.inputs.framing import Framed, FramingError, frame
from segface_batch.output import masks, records
from segface_batch.output.statistics import class_pixels

#: Why there is no row of the parser's own (what decoding and framing refuse has reasons there).
REASONS = {"crashed": "it ends the process that reads or parses it, every time"}


def error_rows(pictures: pa.Table, error: str, dataset: catalog.Dataset, carried: pa.Schema) -> pa.Table:
    """The staged rows of planned pictures (plan's columns) that never came back."""
    own = pictures.select(["image_id", "uri", "unit", "seq", *carried.names])
    rows = [_error_row(picture, Prepared(error=error)) for picture in own.to_pylist()]
    return pa.Table.from_pylist(rows, records.staged_schema(dataset, carried))


@dataclass(frozen=True)
class Prepared:
    """A picture on its way to the network: framed, or with the reason why not."""

    width: int | None = None
    height: int | None = None
    framed: Framed | None = None
    error: str | None = None


class ParseUnits:
    """`parser` are FaceParser's arguments; the rest is as in Job."""

    def __init__(
        self, parser: dict[str, Any], max_pixels: int, storage_options: str | None = None, s3_client: str = "s3fs"
    ) -> None:
        storage.configure(storage_options, s3_client)  # the weights may lie there
        self.parser = self.load(parser)
        self.max_pixels = max_pixels
        self.dataset = self.parser.checkpoint.dataset
        threads = parser.get("threads") or 1
        self.decoders = ThreadPoolExecutor(threads, "decode")
        self.encoders = ThreadPoolExecutor(threads, "encode")

    @staticmethod
    def load(parser: dict[str, Any]) -> Any:
        # Here, because the driver imports this module and has no use for torch.
        from segface_batch.model.parser import FaceParser

        return FaceParser(**parser)

    def __call__(self, unit: pa.Table) -> pa.Table:
        """One row of fetch's -> the same with `rows` (records.staged_schema, a row per picture, in order) in place of
        `pictures`.  What fails but a picture is told in `fatal`, because Ray drops what a worker raises."""
        fatal = unit["fatal"][0].as_py()
        pictures = unnest(unit["pictures"])
        schema = records.staged_schema(self.dataset, _carried(pictures.schema))
        rows: list[dict[str, Any]] = []
        if fatal is None:
            try:
                rows = self._rows(pictures.to_pylist())
            except Exception as error:
                fatal = f"the parser failed: {type(error).__name__}: {error}".partition("\n")[0]
        nested = nest(
            pa.Table.from_pylist(rows, schema), pa.field("rows", pa.large_list(pa.struct(list(schema))), False)
        )
        others = unit.drop_columns(["pictures", "fatal"])
        return others.append_column("rows", nested).append_column("fatal", pa.array([fatal], pa.string()))

    def _rows(self, pictures: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rows: list[Future[dict[str, Any]]] = [Future() for _ in pictures]
        waiting: dict[int, Prepared] = {}
        for index, prepared in enumerate(self._prepared(pictures)):
            if prepared.framed is None:
                rows[index].set_result(_error_row(pictures[index], prepared))
            else:
                waiting[index] = prepared
            if len(waiting) == self.parser.batch_size or (waiting and index == len(pictures) - 1):
                self._parse(pictures, waiting, rows)
                waiting = {}
        return [row.result() for row in rows]

    def _prepared(self, pictures: list[dict[str, Any]]) -> Iterator[Prepared]:
        """Every picture decoded and framed, in order, two batches ahead of the network."""
        todo = iter(pictures)
        futures = [self.decoders.submit(self._prepare, p) for p in islice(todo, 2 * self.parser.batch_size + 1)]
        while futures:
            yield futures.pop(0).result()
            futures += [self.decoders.submit(self._prepare, p) for p in islice(todo, 1)]

    def _prepare(self, picture: dict[str, Any]) -> Prepared:
        data, points = picture.pop("data"), picture["landmarks"]
        if picture["error"] is not None:
            return Prepared(error=picture["error"])
        try:
            image = decode(data, self.max_pixels)
        except DecodeError as error:
            return Prepared(error=str(error))
        try:
            landmarks = None if points is None else np.array(points, np.float32).reshape(-1, 2)
            framed = frame(image, self.parser.checkpoint, landmarks)
        except FramingError as error:
            return Prepared(image.width, image.height, error=str(error))
        return Prepared(image.width, image.height, framed)

    def _parse(
        self, pictures: list[dict[str, Any]], waiting: dict[int, Prepared], rows: list[Future[dict[str, Any]]]
    ) -> None:
        """Label the waiting pictures (by index) together, and have their rows encoded in the background."""
        frames = [prepared.framed for prepared in waiting.values() if prepared.framed is not None]
        fives = [framed.landmarks for framed in frames if framed.landmarks is not None]
        labels = self.parser.labels(np.stack([f.pixels for f in frames]), np.stack(fives) if fives else None)
        for (index, prepared), mask in zip(waiting.items(), labels, strict=True):
            rows[index] = self.encoders.submit(_ok_row, pictures[index], prepared, mask, self.dataset.class_names)


#: Of a fetched picture, what is no column of `stats`; the other columns are, as the manifest's that the user asked for.
NOT_CARRIED = ("landmarks", "data", "error")


def _carried(pictures: pa.Schema) -> pa.Schema:
    """The manifest's columns among those of fetched pictures."""
    own = {*NOT_CARRIED, *(name for name, *_ in records.COLUMNS)}
    return pa.schema([field for field in pictures if field.name not in own])


def _error_row(picture: dict[str, Any], prepared: Prepared) -> dict[str, Any]:
    """The staged row of a picture that cannot be parsed; columns that are absent become null."""
    row = {name: value for name, value in picture.items() if name not in NOT_CARRIED}
    row |= {"face": 0, "n_faces": 0, "status": records.ERROR, "error": prepared.error}
    return row | {"width": prepared.width, "height": prepared.height}


def _ok_row(
    picture: dict[str, Any], prepared: Prepared, mask: np.ndarray, class_names: Sequence[str]
) -> dict[str, Any]:
    """The staged row of a parsed picture: its statistics and its mask as PNG."""
    assert prepared.framed is not None
    box = dict(zip(("box_left", "box_top", "box_right", "box_bottom"), prepared.framed.box, strict=True))
    row = _error_row(picture, prepared) | {"n_faces": 1, "status": records.OK} | box
    for name, count in zip(class_names, class_pixels(mask, len(class_names)).tolist(), strict=True):
        row |= {f"px_{name}": count, f"frac_{name}": count / mask.size}
    return row | {"mask": {"bytes": masks.encode(mask)}}
