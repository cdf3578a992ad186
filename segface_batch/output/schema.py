"""The schema of the output: one row per face, and one per image without a face or with an error.

The rows are written as two Parquet data sets, `stats` and `masks`, joined by (unit, seq, face); staged tables have
both side by side.  No column's type depends on the data.  What a reader must know besides the columns (class table,
checkpoint, versions) is JSON under the key `segface_batch` of the Parquet metadata.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from segface_batch.catalog import BACKGROUND, Dataset
from segface_batch.images import masks, statistics
from segface_batch.output.face import Face

SCHEMA_VERSION = 4

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

#: What names a row; the first two name its image.
KEY = ("unit", "seq", "face")

#: The columns that both tables have.
SHARED = ("image_id", *KEY)

_NOTHING = pa.schema([])


#: Names that a staged row needs for itself, besides COLUMNS and the statistics.
_OWN = ("mask", "landmarks")


def is_reserved(name: str) -> bool:
    """True for names that a column of the inputs cannot keep in the output."""
    word = name.lower()  # DuckDB takes Status and status for the same
    prefixes = tuple(statistic.name for statistic in statistics.STATISTICS if statistic.per_class)
    fixed = {*_OWN, *(name for name, *_ in COLUMNS), *(s.name for s in statistics.STATISTICS if not s.per_class)}
    return word in fixed or word.startswith((*prefixes, "_"))


def check_carried(columns: Sequence[str]) -> None:
    """ValueError for columns of the inputs that the output cannot repeat under their names."""
    for name in columns:
        if is_reserved(name):
            raise ValueError(f"column '{name}' cannot be carried, the name is the output's own; rename it in the input")
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise ValueError(f"column '{twice[0]}' is asked for twice; name it once")


def stats_schema(dataset: Dataset, carried: pa.Schema = _NOTHING) -> pa.Schema:
    """COLUMNS, statistics of the whole mask, the columns carried from the inputs, then statistics per class in the
    order of the ids."""
    fixed = [pa.field(name, kind, nullable) for name, kind, nullable, _ in COLUMNS]
    whole, per_class = (statistics.fields(dataset.class_names, per_class=each) for each in (False, True))
    return pa.schema([*fixed, *whole, *carried, *per_class])


def masks_schema() -> pa.Schema:
    """The SHARED columns and the mask; null where `stats` has no face."""
    fixed = [pa.field(name, kind, nullable) for name, kind, nullable, _ in COLUMNS if name in SHARED]
    return pa.schema([*fixed, pa.field("mask", MASK)])


def staged_schema(dataset: Dataset, carried: pa.Schema = _NOTHING) -> pa.Schema:
    """Both tables side by side, as a worker stages them."""
    return stats_schema(dataset, carried).append(pa.field("mask", MASK))


def describe(dataset: Dataset, carried: pa.Schema = _NOTHING) -> dict[str, Any]:
    """The class table and the meaning of every column, for run.json and the Parquet metadata."""
    return {
        "schema_version": SCHEMA_VERSION,
        "dataset": dataset.name,
        "classes": [
            {"id": index, "name": face_class.name, "meaning": face_class.meaning, "color": list(face_class.color)}
            for index, face_class in enumerate(dataset.classes)
        ],
        "columns": {
            **{name: meaning for name, _, _, meaning in COLUMNS},
            **{statistic.shown: statistic.meaning for statistic in statistics.STATISTICS},
            **dict.fromkeys(carried.names, "carried from the manifest or Parquet file of the input"),
            "mask": "8-bit grey PNG; the value of a pixel is the id of its class",
        },
    }


def metadata(run: Mapping[str, Any]) -> dict[str, str]:
    """Key-values of both Parquet data sets; `run` is run.json's content."""
    return {"segface_batch": json.dumps(run, sort_keys=True)}


#: Makes Hugging Face's `datasets` and its viewer show the masks as images.
MASKS_METADATA = {"huggingface": json.dumps({"info": {"features": {"mask": {"_type": "Image"}}}})}


def row(face: Face, class_names: Sequence[str]) -> dict[str, Any]:
    """The staged row of a face, or of an image without one; a column that is absent is null."""
    source = face.image.source
    width, height = face.size or (None, None)
    found: dict[str, Any] = {
        "image_id": source.image_id, "uri": source.uri, "unit": face.image.unit, "seq": face.image.seq,
        "face": face.index, "n_faces": face.n_faces, "error": face.error, "width": width, "height": height,
        **face.image.carried,
    }  # fmt: skip
    if face.crop is None or face.labels is None:
        return found | {"status": ERROR if face.error else NO_FACE}
    crop, labels = face.crop, face.labels
    found |= zip(("box_left", "box_top", "box_right", "box_bottom"), crop.box, strict=True)
    found |= {"status": OK, "score": crop.score, "transform": crop.transform.ravel()}
    found |= {"points": None if crop.points is None else crop.points.ravel()}
    found |= statistics.measured(labels, class_names)
    if found["mask_pixels"] < labels.size:
        labels = np.where(labels == masks.OUTSIDE, np.uint8(BACKGROUND), labels)
    return found | {"mask": {"bytes": masks.encode(labels)}}


def to_table(rows: Sequence[Mapping[str, Any]], dataset: Dataset, carried: pa.Schema = _NOTHING) -> pa.Table:
    """Rows of `row` -> staged_schema."""
    return pa.Table.from_pylist(list(rows), staged_schema(dataset, carried))
