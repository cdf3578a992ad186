"""An output as a program reads it: settings, class table, its tables, and its faces with mask, image and geometry.

Whatever reads an output goes through `open_output`, except `verify`, which must also read what is damaged.  Opening
lists the folders and reads one footer and the names of the planned parts.  Statistics are published last, so the names
of their parts say which parts of all tables are there.
"""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from PIL import Image

from segface_batch import storage
from segface_batch.catalog import Dataset, FaceClass
from segface_batch.images import masks
from segface_batch.output import run as runs, schema
from segface_batch.output.originals import Originals
from segface_batch.output.plan import Plan
from segface_batch.storage import arrow

if TYPE_CHECKING:
    import pyarrow.dataset as ds

log = logging.getLogger(__name__)

#: Rows of `stats` that become Python objects together.
BATCH_ROWS = 1024

#: What a face needs of its row.
_NEEDED = ("image_id", "uri", *schema.KEY, "width", "height", "transform")

#: What the files of parts are called; a sync tool's `part-00000 (conflicted copy).parquet` is none.
_PART = re.compile(r"part-\d{5,}\.parquet")


@dataclass(frozen=True)
class OutputFace:
    """A face that has a mask: `row` is its row of `stats`.  Mask and image are read when they are asked for."""

    row: dict[str, Any]
    part: MasksPart
    originals: Originals

    @property
    def key(self) -> tuple[int, ...]:
        """What names the face in all tables: unit, seq, face."""
        return tuple(self.row[name] for name in schema.KEY)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the upright image in pixels."""
        return self.row["width"], self.row["height"]

    @property
    def transform(self) -> np.ndarray:
        """(2, 3) float64: takes (x, y, 1) of the mask to the upright image, as `masks.paste` wants it."""
        return np.reshape(self.row["transform"], (2, 3))

    @property
    def png(self) -> bytes:
        """The mask as the output has it."""
        return self.part.png(self.key)

    @property
    def mask(self) -> np.ndarray:
        """(H, W) uint8 class ids."""
        return masks.decode(self.png)

    def image(self) -> Image.Image:
        """Read the upright image again, RGB.

        ValueError where it is no longer the one that was annotated, FileNotFoundError where it is gone, other OSError
        where it cannot be read.
        """
        (image,) = self.originals.read([self.row])
        if isinstance(image, Exception):
            raise image
        return image


@dataclass(frozen=True)
class Output:
    """`run` is run.json's content as the Parquet metadata repeats it; the class table `dataset` is from there.

    `parts` are the names of the published files, the same in the folder of each table; `root` is the output's path in
    the `filesystem`.
    """

    run: dict[str, Any]
    dataset: Dataset
    parts: tuple[str, ...]
    root: str
    filesystem: pafs.FileSystem
    stats_schema: pa.Schema
    originals: Originals

    @property
    def classes(self) -> tuple[FaceClass, ...]:
        """The position of a class is its id."""
        return self.dataset.classes

    def files(self, table: str) -> list[str]:
        """The paths of a table's files, in the plan's order."""
        return [f"{self.root}/{table}/{part}" for part in self.parts]

    @cached_property
    def stats(self) -> ds.FileSystemDataset:
        return self._table(schema.STATS, self.stats_schema)

    @cached_property
    def shapes(self) -> ds.FileSystemDataset:
        return self._table(schema.SHAPES, schema.shapes_schema(self.dataset))

    @cached_property
    def masks(self) -> ds.FileSystemDataset:
        return self._table(schema.MASKS, schema.masks_schema())

    def _table(self, table: str, columns: pa.Schema) -> ds.FileSystemDataset:
        import pyarrow.dataset as ds  # imports pandas where that is installed, for which `query` need not wait

        files, filesystem = self.files(table), self.filesystem
        return ds.FileSystemDataset.from_paths(files, columns, ds.ParquetFileFormat(), filesystem)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the output was made with."""
        return self.run["settings"]

    def faces(
        self,
        where: ds.Expression | None = None,
        columns: Sequence[str] | None = None,
        batch_rows: int = BATCH_ROWS,
    ) -> Iterator[OutputFace]:
        """Every face that has a mask and meets a condition on `stats`, in plan order.

        `columns` are those of `stats` that are wanted in `row`, besides image_id, uri, key and geometry; None is all.
        In memory are `batch_rows` of these rows, and a row group of masks for the faces of each part that the caller
        keeps: a mask asked for in plan order is read once, with its row group.
        """
        import pyarrow.dataset as ds

        has_mask = ds.field("status") == schema.OK
        scanner = self.stats.scanner(
            columns=None if columns is None else list(dict.fromkeys((*_NEEDED, *columns))),
            filter=has_mask if where is None else has_mask & where,
            batch_size=batch_rows,
        )
        beside = dict(zip(self.stats.files, self.masks.files, strict=True))
        for stats_part, batches in itertools.groupby(scanner.scan_batches(), lambda tagged: tagged.fragment.path):
            part = MasksPart(beside[stats_part], self.masks.filesystem)
            for tagged in batches:
                for row in tagged.record_batch.to_pylist():
                    yield OutputFace(row, part, self.originals)

    def images(self, faces: Iterable[OutputFace]) -> Iterator[tuple[OutputFace, Image.Image | OSError | ValueError]]:
        """Each face and its upright image, or the error that `OutputFace.image` would raise.

        Of faces in plan order, a tar or Parquet file is read once a unit, and the image of several faces once.  In
        memory are the encoded images of a unit.
        """
        for _, group in itertools.groupby(faces, lambda face: face.row["unit"]):
            of_unit = list(group)
            yield from zip(of_unit, self.originals.read([face.row for face in of_unit]), strict=True)


class MasksPart:
    """A part of `masks`, opened when a mask is asked for; holds the row group that was asked for last."""

    def __init__(self, file: str, filesystem: pafs.FileSystem) -> None:
        self.file, self.filesystem = file, filesystem
        self._group: tuple[int, pa.ChunkedArray] | None = None

    @cached_property
    def _parquet(self) -> pq.ParquetFile:
        return pq.ParquetFile(self.file, filesystem=self.filesystem, pre_buffer=True)

    @cached_property
    def _places(self) -> dict[tuple[int, ...], tuple[int, int]]:
        """By key, the row group of a mask and its row in it."""
        found: dict[tuple[int, ...], tuple[int, int]] = {}
        for group in range(self._parquet.num_row_groups):
            keys = self._parquet.read_row_group(group, list(schema.KEY))
            columns = (keys[name].to_pylist() for name in schema.KEY)
            found |= {key: (group, row) for row, key in enumerate(zip(*columns, strict=True))}
        return found

    def png(self, key: tuple[int, ...]) -> bytes:
        """Read the mask of a face."""
        if key not in self._places:
            raise ValueError(f"'{self.file}' lacks a row that stats has; 'segface-batch verify' says what is damaged")
        group, row = self._places[key]
        if self._group is None or self._group[0] != group:
            self._group = group, self._parquet.read_row_group(group, ["mask"])["mask"]
        return self._group[1][row]["bytes"].as_py()


def open_output(out: str) -> Output:
    """The parts of `out` (a folder or fsspec URL) that are published now.

    FileNotFoundError where there is none yet or masks are missing, ValueError for an output of a newer version of
    this package or of another program; the errors of `storage`.
    """
    out = storage.absolute(out)
    filesystem, root = arrow.filesystem(out)
    names = {table: storage.list_names(storage.join(out, table), ".parquet") for table in reversed(schema.TABLES)}
    parts = [name for name in names[schema.STATS] if _PART.fullmatch(name)]
    if not parts:
        raise FileNotFoundError(
            f"'{out}/stats' has no Parquet part yet: 'segface-batch annotate INPUT {out}' is still running or was "
            "not started, or this is not the folder of an output"
        )
    stats_schema = pq.read_schema(f"{root}/stats/{parts[0]}", filesystem=filesystem)
    run = _run(f"{out}/stats/{parts[0]}", stats_schema)
    plan = _read_plan(out, run)
    if plan is not None:
        planned = {f"{part.name}.parquet" for part in plan.parts}
        parts = [name for name in parts if name in planned]
    if strays := sorted({*names[schema.STATS]} - {*parts}):
        log.warning(
            "'%s/stats' has Parquet files that are no part of the output and are left out: %d, the first is '%s'; "
            "'segface-batch verify' names all",
            out,
            len(strays),
            strays[0],
        )
    for table in schema.TABLES:
        if missing := sorted({*parts} - {*names[table]}):
            raise FileNotFoundError(
                f"'{out}/{table}/{missing[0]}' is missing though stats has that part; copy all folders"
            )
    originals = Originals(out, plan, run["settings"])
    return Output(run, _dataset(run), tuple(parts), root, filesystem, stats_schema, originals)


def _read_plan(out: str, run: Mapping[str, Any]) -> Plan | None:
    """What is planned; None where only the tables were copied or may be read.

    Read after `stats` was listed, so that it has every part found there.
    """
    if "plan" not in run:
        return None
    try:
        return runs.read_plan(out, run)
    except (FileNotFoundError, PermissionError, ValueError):  # damage is for `verify` to tell
        return None


def _run(part: str, stats_schema: pa.Schema) -> dict[str, Any]:
    content = (stats_schema.metadata or {}).get(b"segface_batch")
    if content is None:
        raise ValueError(f"'{part}' was not written by segface-batch: its metadata lacks the key 'segface_batch'")
    run = json.loads(content)
    if run["schema_version"] != schema.SCHEMA_VERSION:
        other = "a newer" if run["schema_version"] > schema.SCHEMA_VERSION else "that"
        raise ValueError(
            f"'{part}' has schema version {run['schema_version']}, and this segface-batch reads "
            f"{schema.SCHEMA_VERSION}; use {other} one, or read the Parquet files with any other tool"
        )
    return run


def _dataset(run: Mapping[str, Any]) -> Dataset:
    """The inverse of `schema.describe`."""
    by_id = sorted(run["classes"], key=lambda entry: entry["id"])
    classes = (FaceClass(each["name"], each["meaning"], tuple(each["color"]), each["common"]) for each in by_id)
    return Dataset(run["dataset"], tuple(classes), landmarks="")
