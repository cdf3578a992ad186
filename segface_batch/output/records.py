"""The schema of the output: one row per face, and one per picture without a face or with an error.

The same rows make two Parquet data sets, `stats` and `masks`, joined by (unit, seq, face); while a run goes on both
live in one staged table.  No column's type depends on the data.  Everything that a reader must know besides the
columns (class table, checkpoint, versions) is JSON under the key `segface_batch` of the Parquet metadata.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from segface_batch.catalog import Dataset

SCHEMA_VERSION = 3

OK, NO_FACE, ERROR = "ok", "no_face", "error"

#: name, type, nullable, meaning: the columns that every run has, before the two per class.
COLUMNS: tuple[tuple[str, pa.DataType, bool, str], ...] = (
    (
        "image_id",
        pa.string(),
        False,
        "the picture's path below the input, the name that the manifest or Parquet file gives it, or SHARD.tar/MEMBER",
    ),
    (
        "uri",
        pa.string(),
        False,
        "where the picture was read from; FILE#ROW in a Parquet file, SHARD.tar#MEMBER in a tar file",
    ),
    ("unit", pa.int32(), False, "unit of work the picture belongs to"),
    ("seq", pa.int32(), False, "position of the picture in its unit; (unit, seq) names a picture, with face a row"),
    ("face", pa.int16(), False, "number of the face in its picture, from 0"),
    ("n_faces", pa.int16(), False, "faces parsed in the picture; 0 on an error"),
    ("status", pa.string(), False, "ok, no_face or error"),
    ("error", pa.string(), True, "why there is no mask, in one stable word; null when ok"),
    ("width", pa.int32(), True, "width of the upright picture in pixels"),
    ("height", pa.int32(), True, "height of the upright picture in pixels"),
    (
        "box_left",
        pa.float32(),
        True,
        "left edge of the face's box in pixels of the upright picture: the detector's; of ready crops the whole "
        "picture, Helen's the square around the landmarks",
    ),
    ("box_top", pa.float32(), True, "top edge of it"),
    ("box_right", pa.float32(), True, "right edge of it (exclusive)"),
    ("box_bottom", pa.float32(), True, "bottom edge of it (exclusive)"),
    ("score", pa.float32(), True, "confidence of the face detector; null when none ran"),
    (
        "points",
        pa.list_(pa.float32()),
        True,
        "the detector's five landmarks in pixels of the upright picture: x, y of the eyes, nose tip and mouth corners, "
        "left before right as seen; null when none ran",
    ),
    (
        "transform",
        pa.list_(pa.float64()),
        True,
        "six numbers a to f that take the mask to the upright picture, pixels counted by their edges: "
        "x' = a x + b y + c, y' = d x + e y + f",
    ),
    (
        "mask_pixels",
        pa.int32(),
        True,
        "pixels of the mask that were parsed: R x R; with --mask-space image those of the picture that the face's "
        "frame covers",
    ),
)

#: 8-bit grey PNG of class ids in the layout of Hugging Face's `Image` feature (which lets `bytes` be null).
MASK = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])

KEY = ("image_id", "unit", "seq", "face")

_NOTHING = pa.schema([])


#: Names that a fetched picture or a staged row needs for itself, besides COLUMNS and those per class.
_OWN = ("landmarks", "data", "mask")


def is_reserved(name: str) -> bool:
    """True for names that a column of the inputs cannot keep in the output."""
    fixed = [name for name, _, _, _ in COLUMNS]
    word = name.lower()  # DuckDB takes Status and status for the same
    return word in fixed or word in _OWN or word.startswith(("px_", "frac_", "_"))


def check_carried(columns: Sequence[str]) -> None:
    """ValueError for columns of the inputs that the output cannot repeat under their names."""
    for name in columns:
        if is_reserved(name):
            raise ValueError(f"column '{name}' cannot be carried, the name is the output's own; rename it in the input")
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise ValueError(f"column '{twice[0]}' is asked for twice; name it once")


def stats_schema(dataset: Dataset, carried: pa.Schema = _NOTHING) -> pa.Schema:
    """COLUMNS, those carried from the inputs, then px_<class> (int32) and frac_<class> (float32) for every class in
    the order of its id."""
    fixed = [pa.field(name, kind, nullable) for name, kind, nullable, _ in COLUMNS] + list(carried)
    pixels = [pa.field(f"px_{name}", pa.int32()) for name in dataset.class_names]
    fractions = [pa.field(f"frac_{name}", pa.float32()) for name in dataset.class_names]
    return pa.schema(fixed + pixels + fractions)


def masks_schema() -> pa.Schema:
    """The key columns and the mask; null where `stats` has no face."""
    fixed = [pa.field(name, kind, nullable) for name, kind, nullable, _ in COLUMNS if name in KEY]
    return pa.schema([*fixed, pa.field("mask", MASK)])


def staged_schema(dataset: Dataset, carried: pa.Schema = _NOTHING) -> pa.Schema:
    """Both tables side by side, as they travel from the parser to staging."""
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
            **dict.fromkeys(carried.names, "carried from the manifest or Parquet file of the input"),
            "px_<class>": "pixels of the class in the mask",
            "frac_<class>": "px_<class> / mask_pixels, 0 to 1",
            "mask": "8-bit grey PNG; the value of a pixel is the id of its class",
        },
    }


def metadata(run: Mapping[str, Any]) -> dict[str, str]:
    """Key-values of both Parquet data sets; `run` is run.json's content."""
    return {"segface_batch": json.dumps(run, sort_keys=True)}


#: Makes Hugging Face's `datasets` and its viewer show the masks as pictures.
MASKS_METADATA = {"huggingface": json.dumps({"info": {"features": {"mask": {"_type": "Image"}}}})}
