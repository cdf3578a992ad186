"""The schema of the output: one row per face, and one per image without a face or with an error.

The rows are written as three Parquet data sets, `stats`, `shapes` and `masks`, joined by (unit, seq, face); staged
tables have them side by side.  No column's type depends on the data.  What a reader must know besides the columns
(class table, checkpoint, versions) is JSON under the key `segface_batch` of the Parquet metadata.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from segface_batch.catalog import BACKGROUND, Dataset
from segface_batch.images import masks, statistics
from segface_batch.images.measures import CroppedFace
from segface_batch.images.statistics import SHAPES, STATS, Mask
from segface_batch.output.face import Face

SCHEMA_VERSION = 5

OK, NO_FACE, ERROR = "ok", "no_face", "error"

#: name, type, nullable, meaning: where a row comes from and where its face is.  Columns of `images.statistics` follow.
COLUMNS: tuple[tuple[str, pa.DataType, bool, str], ...] = (
    (
        "image_id",
        pa.string(),
        False,
        "the image's path below the input, the name that the manifest or Parquet file gives it, or SHARD.tar/MEMBER",
    ),
    (
        "uri",
        pa.string(),
        False,
        "where the image was read from; FILE#ROW in a Parquet file, SHARD.tar#MEMBER in a tar file",
    ),
    ("unit", pa.int32(), False, "unit of work the image belongs to"),
    ("seq", pa.int32(), False, "position of the image in its unit; (unit, seq) names an image, with face a row"),
    ("face", pa.int16(), False, "number of the face in its image, from 0"),
    ("n_faces", pa.int16(), False, "faces in the image (1 in a ready crop); 0 if the image has an error"),
    ("status", pa.string(), False, "ok, no_face or error"),
    ("error", pa.string(), True, "why there is no mask, in one stable word; null when ok"),
    ("width", pa.int32(), True, "width of the upright image in pixels"),
    ("height", pa.int32(), True, "height of the upright image in pixels"),
    (
        "box_left",
        pa.float32(),
        True,
        "left edge of the face's box in pixels of the upright image: the box that was found or given, or that around "
        "given landmarks; the whole image if it is a ready crop; for Helen checkpoints the square that is cropped",
    ),
    ("box_top", pa.float32(), True, "top edge of it"),
    ("box_right", pa.float32(), True, "right edge of it (exclusive)"),
    ("box_bottom", pa.float32(), True, "bottom edge of it (exclusive)"),
    ("score", pa.float32(), True, "confidence of the face detector; null when none ran"),
    (
        "points",
        pa.list_(pa.float32()),
        True,
        "the face's five landmarks, found or given, in pixels of the upright image: x, y of the eyes, nose tip and "
        "mouth corners, left before right as seen; null where the face is cropped as a ready crop",
    ),
    (
        "transform",
        pa.list_(pa.float64()),
        True,
        "six numbers a to f that take a point of the mask to the upright image: x' = a x + b y + c, "
        "y' = d x + e y + f; the first pixel reaches from 0 to 1",
    ),
)

#: 8-bit grey PNG of class ids in the layout of Hugging Face's `Image` feature (which lets `bytes` be null).
MASK = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])

#: Columns of `masks` besides SHARED.
MASK_COLUMNS = {
    "mask": "8-bit grey PNG; the value of a pixel is the id of its class",
    "margin": "8-bit grey PNG of the mask's size; the best class's probability less the second's, times 255; null "
    "without --confidence-map",
}

#: What names a row; the first two name its image.
KEY = ("unit", "seq", "face")

#: The columns that all tables have.
SHARED = ("image_id", *KEY)

#: The tables, in the order in which their files are published: the last one says that the others are there.
MASKS = "masks"
TABLES = (MASKS, SHAPES, STATS)

_NOTHING = pa.schema([])


def check_carried(columns: Sequence[str], dataset: Dataset) -> None:
    """ValueError for columns of the inputs that the output cannot repeat under their names."""
    own = {"landmarks", *(name.lower() for name in staged_schema(dataset).names)}
    for name in columns:
        if name.lower() in own or name.startswith("_"):  # DuckDB takes Status and status for the same
            raise ValueError(f"column '{name}' cannot be carried, the name is the output's own; rename it in the input")
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise ValueError(f"column '{twice[0]}' is asked for twice; name it once")


def stats_schema(dataset: Dataset, carried: pa.Schema = _NOTHING) -> pa.Schema:
    """COLUMNS, statistics of the whole face, the columns carried from the inputs, then statistics per class in the
    order of the ids."""
    whole, per_class = (statistics.fields(dataset.class_names, STATS, per_class=each) for each in (False, True))
    return pa.schema([*_fixed(name for name, *_ in COLUMNS), *whole, *carried, *per_class])


def shapes_schema(dataset: Dataset) -> pa.Schema:
    """The SHARED columns and the statistics of that table; null where `stats` has no face."""
    whole, per_class = (statistics.fields(dataset.class_names, SHAPES, per_class=each) for each in (False, True))
    return pa.schema([*_fixed(SHARED), *whole, *per_class])


def masks_schema() -> pa.Schema:
    """The SHARED columns and MASK_COLUMNS; null where `stats` has no face."""
    return pa.schema([*_fixed(SHARED), *(pa.field(name, MASK) for name in MASK_COLUMNS)])


def table_schema(table: str, dataset: Dataset, carried: pa.Schema = _NOTHING) -> pa.Schema:
    """That of one of TABLES."""
    if table == STATS:
        return stats_schema(dataset, carried)
    return shapes_schema(dataset) if table == SHAPES else masks_schema()


def staged_schema(dataset: Dataset, carried: pa.Schema = _NOTHING) -> pa.Schema:
    """All tables side by side, as a worker stages them."""
    others = [field for other in (shapes_schema(dataset), masks_schema()) for field in other]
    return pa.schema([*stats_schema(dataset, carried), *(field for field in others if field.name not in SHARED)])


def split(staged: pa.Table, class_names: Sequence[str]) -> dict[str, pa.Table]:
    """A staged table -> each of TABLES."""
    of_shapes = [f.name for each in (False, True) for f in statistics.fields(class_names, SHAPES, per_class=each)]
    return {
        MASKS: staged.select([*SHARED, *MASK_COLUMNS]),
        SHAPES: staged.select([*SHARED, *of_shapes]),
        STATS: staged.drop_columns([*of_shapes, *MASK_COLUMNS]),
    }


def joined(tables: Sequence[pa.Table], staged: pa.Schema) -> pa.Table:
    """The tables of `split` -> the staged table of that schema; all must have the same rows in the same order."""
    columns = {name: table[name] for table in tables for name in table.column_names}
    return pa.table([columns[name] for name in staged.names], staged.names).cast(staged)


def _fixed(names: Iterable[str]) -> list[pa.Field]:
    chosen = {*names}
    return [pa.field(name, kind, nullable) for name, kind, nullable, _ in COLUMNS if name in chosen]


def describe(dataset: Dataset, carried: pa.Schema = _NOTHING) -> dict[str, Any]:
    """The class table and the meaning of every column, for run.json and the Parquet metadata."""
    return {
        "schema_version": SCHEMA_VERSION,
        "dataset": dataset.name,
        "classes": [
            {"id": index, **asdict(each), "color": list(each.color)} for index, each in enumerate(dataset.classes)
        ],
        "columns": {
            **{name: {"table": STATS, "meaning": meaning} for name, _, _, meaning in COLUMNS},
            **{each.shown: _described(each) for each in statistics.STATISTICS},
            **{name: {"table": STATS, "meaning": "carried from the inputs"} for name in carried.names},
            **{name: {"table": MASKS, "meaning": meaning} for name, meaning in MASK_COLUMNS.items()},
        },
    }


def _described(statistic: statistics.Statistic) -> dict[str, str]:
    about = {"table": statistic.table, "unit": statistic.unit, "meaning": statistic.meaning}
    return about | ({"source": statistic.source} if statistic.source else {})


def metadata(run: Mapping[str, Any]) -> dict[str, str]:
    """Key-values of all Parquet data sets; `run` is run.json's content."""
    return {"segface_batch": json.dumps(run, sort_keys=True)}


#: Makes Hugging Face's `datasets` and its viewer show the masks as images.
MASKS_METADATA = {
    "huggingface": json.dumps({"info": {"features": {name: {"_type": "Image"} for name in MASK_COLUMNS}}})
}


def row(face: Face, dataset: Dataset) -> dict[str, Any]:
    """The staged row of a face, or of an image without one; a column that is absent is null."""
    source = face.image.source
    width, height = face.size or (None, None)
    found: dict[str, Any] = {
        "image_id": source.image_id, "uri": source.uri, "unit": face.image.unit, "seq": face.image.seq,
        "face": face.index, "n_faces": face.n_faces, "error": face.error, "width": width, "height": height,
        **face.image.carried,
    }  # fmt: skip
    if face.crop is None or face.labels is None or face.size is None:
        return found | {"status": ERROR if face.error else NO_FACE}
    crop, pasted = face.crop, face.pasted
    pixels = crop.pixels if crop.pixels.size else None  # `measure` has masks without images
    cropped = CroppedFace(face.labels, dataset, crop.transform, face.size, pixels)
    labels, margins = face.labels, None if face.confidence is None else face.confidence.margins
    transform = crop.transform
    if pasted is not None:
        labels, margins, transform = pasted.labels, pasted.margins, pasted.transform
    found |= zip(("box_left", "box_top", "box_right", "box_bottom"), crop.box, strict=True)
    found |= {"status": OK, "score": crop.score, "transform": transform.ravel()}
    found |= {"points": None if crop.points is None else crop.points.ravel()}
    found |= statistics.measured(Mask(labels, cropped, face.confidence))
    if pasted is not None:
        labels = np.where(labels == masks.OUTSIDE, np.uint8(BACKGROUND), labels)
    found["mask"] = {"bytes": masks.encode(labels)}
    return found | ({} if margins is None else {"margin": {"bytes": masks.encode(margins)}})


def to_table(rows: Sequence[Mapping[str, Any]], dataset: Dataset, carried: pa.Schema = _NOTHING) -> pa.Table:
    """Rows of `row` -> staged_schema."""
    return pa.Table.from_pylist(list(rows), staged_schema(dataset, carried))
