"""A tiny finished output, written with pyarrow alone: images drawn here, masks of known rectangles."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from segface_batch.catalog import LAPA
from segface_batch.output import schema as records

#: Side of the masks.
RESOLUTION = 8

NAMES = LAPA.class_names


def mask(*rectangles: tuple[str, int, int, int, int]) -> np.ndarray:
    """(8, 8) background with rectangles (class, left, top, right, bottom), later ones over earlier ones."""
    labels = np.zeros((RESOLUTION, RESOLUTION), np.uint8)
    for name, left, top, right, bottom in rectangles:
        labels[top:bottom, left:right] = NAMES.index(name)
    return labels


FACE = mask(("hair", 0, 0, 8, 2), ("face_lr_rr", 2, 2, 6, 8), ("nose", 3, 4, 5, 6))
SECOND = mask(("face_lr_rr", 0, 0, 8, 8))


def row(image_id: str, uri: Path | str, seq: int, labels: np.ndarray | None = None, **values: Any) -> dict[str, Any]:
    """One row of all tables, ok when it has a mask; the box is the whole of a 64 x 32 image unless given."""
    blank: dict[str, Any] = dict.fromkeys(records.staged_schema(LAPA).names)
    del blank["transform"]
    blank |= {"image_id": image_id, "uri": str(uri), "unit": 0, "seq": seq, "face": 0, "n_faces": 0}
    if labels is None:
        return blank | {"status": records.ERROR, "error": "truncated"} | values
    sink = BytesIO()
    Image.fromarray(labels).save(sink, format="PNG")
    counts = np.bincount(labels.ravel(), minlength=len(NAMES))[: len(NAMES)].tolist()  # without 255
    found = (
        blank
        | {"status": records.OK, "n_faces": 1, "width": 64, "height": 32, "mask": {"bytes": sink.getvalue()}}
        | {"box_left": 0, "box_top": 0, "box_right": 64, "box_bottom": 32}
        | {f"px_{name}": count for name, count in zip(NAMES, counts, strict=True)}
        | {f"frac_{name}": count / labels.size for name, count in zip(NAMES, counts, strict=True)}
        | values
    )
    left, top, right, bottom = (found[f"box_{side}"] for side in ("left", "top", "right", "bottom"))
    height, width = labels.shape
    return {"transform": [(right - left) / width, 0, left, 0, (bottom - top) / height, top]} | found


def write_part(out: Path, part: int, rows: list[dict[str, Any]], schema_version: int = records.SCHEMA_VERSION) -> None:
    """One part of every table."""
    run = {
        "settings": {"max_pixels": 1_000_000, "faces": "whole"},
        **records.describe(LAPA),
        "schema_version": schema_version,
    }
    metadata = records.metadata(run)
    table = pa.Table.from_pylist(rows, records.staged_schema(LAPA)).replace_schema_metadata(metadata)
    for name, content in records.split(table, NAMES).items():
        (out / name).mkdir(parents=True, exist_ok=True)
        pq.write_table(content.replace_schema_metadata(metadata), out / name / f"part-{part:05d}.parquet")
    (out / "_segface").mkdir(exist_ok=True)
    (out / "_segface" / "run.json").write_text(json.dumps(run))


def write_image(
    path: Path, left: tuple[int, int, int] = (203, 3, 3), right: tuple[int, int, int] = (3, 3, 203)
) -> Path:
    """A PNG of 64 x 32 pixels, the left half of one colour and the right half of another."""
    image = Image.new("RGB", (64, 32), left)
    image.paste(right, (32, 0, 64, 32))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def small_output(folder: Path) -> Path:
    """Two parts, five rows: a/one.png with a face, two.png with two, broken.png, empty.png without a face."""
    out = folder / "out"
    one, two = write_image(folder / "faces" / "a" / "one.png"), write_image(folder / "faces" / "two.png")
    half = {"unit": 1, "n_faces": 2, "box_bottom": 16}
    write_part(out, 0, [row("a/one.png", one, 0, FACE), row("broken.png", folder / "faces" / "broken.png", 1)])
    write_part(
        out,
        1,
        [
            row("two.png", two, 0, FACE, **half, box_right=32, score=0.9),
            row("two.png", two, 0, SECOND, **half, box_left=32, box_top=8, face=1, score=0.8),
            row("empty.png", two, 1, unit=1, status=records.NO_FACE, error=None, width=64, height=32),
        ],
    )
    return out
