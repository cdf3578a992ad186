"""An image of one row: the photograph, the mask laid over it, and a legend, side by side in a PNG.

Colours and names come from the output's own class table.  H, W: height and width of the photograph as drawn; R: side of
the mask.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
from PIL import Image, ImageDraw, ImageFont

from segface_batch import storage
from segface_batch.catalog import BACKGROUND
from segface_batch.images import masks
from segface_batch.images.decode import DecodeError, decode as decode_image
from segface_batch.output import schema
from segface_batch.output.reader import Tables, open_tables

#: Longer side of the photograph as drawn, in pixels.
SIDE = 512

#: How much of a pixel the class colour takes; the rest is the photograph.
OPACITY = 0.55

#: How many names are looked through for one like a name that is unknown.
_NAMES = 20_000

_TEXT_PIXELS = 15
_MARGIN = 12
_BORDER = (255, 255, 255)
_FOUND = (255, 220, 0)
_PAPER, _INK = (255, 255, 255), (30, 30, 30)

#: A line of the legend: name, share, colour.
Entry = tuple[str, str, tuple[int, int, int] | None]

_KEY = ("unit", "seq", "face")
_COLUMNS = (
    "image_id", "uri", "unit", "seq", "face", "status", "error", "width", "height",
    "box_left", "box_top", "box_right", "box_bottom", "points", "transform",
)  # fmt: skip


def show(out: str, image_id: str, target: Path, face: int | None = None) -> Path:
    """Draw the image `image_id` of the output `out` into the PNG `target`, and return `target`.

    `face` is the number of one face; None draws all.  ValueError, in one line, for an unknown or ambiguous image_id, a
    row without mask and a photograph that is no longer the one annotated; FileNotFoundError and other OSError where
    the photograph or the output cannot be read.
    """
    tables = open_tables(out)
    drawn = draw(tables, _rows(tables, image_id, face), SIDE)
    _page(drawn.photograph, drawn.overlay, _legend(drawn.counts, class_table(tables))).save(target, format="PNG")
    return target


@dataclass(frozen=True)
class Drawn:
    """A photograph, the same in the colours of its classes, and `counts` (256,), mask pixels of each class id."""

    photograph: Image.Image
    overlay: Image.Image
    counts: np.ndarray


def draw(tables: Tables, rows: list[dict[str, Any]], side: int) -> Drawn:
    """The faces of one image (rows of `with_masks`) with a longer side of `side` pixels."""
    photograph = _photograph(rows[0], tables.run["settings"]["max_pixels"])
    scale = side / max(photograph.size)
    width, height = (max(1, round(side * scale)) for side in photograph.size)
    small = photograph.resize((width, height), Image.Resampling.LANCZOS)
    labels = np.full((height, width), BACKGROUND, np.uint8)
    counts = np.zeros(256, np.int64)
    for row in rows:
        mask = masks.decode(row["mask"])
        counts += np.bincount(mask.ravel(), minlength=256)
        _lay(mask, row["transform"], labels, scale)
    overlay = _overlay(np.asarray(small), labels, class_table(tables))
    for row in rows:
        if row["points"] is not None:
            _mark(small, row, scale)
    return Drawn(small, overlay, counts)


def class_table(tables: Tables) -> dict[int, dict[str, Any]]:
    """The output's classes by id: name and color of each."""
    return {entry["id"]: entry for entry in tables.run["classes"]}


def _rows(tables: Tables, image_id: str, face: int | None) -> list[dict[str, Any]]:
    """The statistics of the chosen faces of one image with the PNG of each under `mask`."""
    found = list(rows(tables, ds.field("image_id") == image_id))
    if not found:
        raise ValueError(f"no image '{image_id}' in the output{_hint(tables, image_id)}")
    if len({(row["unit"], row["seq"]) for row in found}) > 1:
        raise ValueError(f"several images are called '{image_id}': {', '.join(sorted(row['uri'] for row in found))}")
    if found[0]["status"] == schema.ERROR:
        raise ValueError(f"'{image_id}' has no mask: it failed with '{found[0]['error']}' ({found[0]['uri']})")
    if found[0]["status"] == schema.NO_FACE:
        raise ValueError(f"'{image_id}' has no mask: no face was found in it ({found[0]['uri']})")
    chosen = [row for row in found if face in (None, row["face"])]
    if not chosen:
        numbers = ", ".join(str(row["face"]) for row in found)
        raise ValueError(f"'{image_id}' has no face {face}; choose one of {numbers}")
    return with_masks(tables, sorted(chosen, key=lambda row: row["face"]))


def rows(tables: Tables, condition: ds.Expression) -> Iterator[dict[str, Any]]:
    """The statistics that meet a condition, in plan order, and the `part` that each lies in."""
    if tables.run["schema_version"] < schema.SCHEMA_VERSION:
        raise ValueError(
            "the output was made by an earlier segface-batch and does not say where its masks lie; use that"
        )
    for tagged in tables.stats.scanner(columns=list(_COLUMNS), filter=condition).scan_batches():
        for row in tagged.record_batch.to_pylist():
            yield {**row, "part": tagged.fragment.path}


def with_masks(tables: Tables, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, each with the PNG of its mask under `mask`."""
    png = {}
    for part in dict.fromkeys(row["part"] for row in found):
        here = ds.field("image_id").isin([row["image_id"] for row in found if row["part"] == part])
        table = tables.masks_beside(part).to_table(columns=[*_KEY, "mask"], filter=here)
        png |= {tuple(row[name] for name in _KEY): row["mask"] for row in table.to_pylist()}
    return [{**row, "mask": png[tuple(row[name] for name in _KEY)]["bytes"]} for row in found]


def _hint(tables: Tables, image_id: str) -> str:
    names = tables.stats.head(_NAMES, columns=["image_id"])["image_id"].unique().to_pylist()
    wanted = image_id.lower()
    near = [name for name in names if wanted in name.lower()] or difflib.get_close_matches(image_id, names, n=3)
    return f"; did you mean {' or '.join(repr(name) for name in near[:3])}?" if near else ""


def _photograph(row: dict[str, Any], max_pixels: int) -> Image.Image:
    """The upright photograph that the row describes, RGB."""
    try:
        photograph = decode_image(storage.read(row["uri"]), max_pixels)
    except FileNotFoundError:
        raise FileNotFoundError(f"the image is no longer at '{row['uri']}'; its mask is in the output still") from None
    except DecodeError as error:
        raise ValueError(f"'{row['uri']}' changed since it was annotated: it is {error} now") from error
    if photograph.size != (row["width"], row["height"]):
        raise ValueError(
            f"'{row['uri']}' changed since it was annotated: {row['width']} x {row['height']} pixels then, "
            f"{photograph.width} x {photograph.height} now"
        )
    return photograph


def _lay(mask: np.ndarray, transform: list[float], labels: np.ndarray, scale: float) -> None:
    """Lay a mask (R, R) where its transform puts it in `labels` (H, W), which is the photograph at a scale: a pixel
    takes the class at its middle, unless background."""
    a, b, c, d, e, f = transform
    back = np.linalg.inv([[a, b, c], [d, e, f], [0, 0, 1]])
    y, x = (np.indices(labels.shape) + 0.5) / scale
    columns, rows = (np.floor(back[i, 0] * x + back[i, 1] * y + back[i, 2]).astype(np.int64) for i in range(2))
    inside = (rows >= 0) & (rows < mask.shape[0]) & (columns >= 0) & (columns < mask.shape[1])
    laid = np.full(labels.shape, BACKGROUND, np.uint8)
    laid[inside] = mask[rows[inside], columns[inside]]
    painted = laid != BACKGROUND
    labels[painted] = laid[painted]


def _mark(photograph: Image.Image, row: dict[str, Any], scale: float) -> None:
    """Draw the box and the landmarks of a face that was found into the photograph at a scale."""
    draw = ImageDraw.Draw(photograph)
    draw.rectangle([row[f"box_{side}"] * scale for side in ("left", "top", "right", "bottom")], outline=_FOUND, width=2)
    for x, y in np.reshape(row["points"], (-1, 2)) * scale:
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=_FOUND)


def _overlay(photograph: np.ndarray, labels: np.ndarray, classes: dict[int, dict[str, Any]]) -> Image.Image:
    """(H, W, 3) RGB and (H, W) class ids -> the photograph in the colours of its classes, with a line between them."""
    palette = np.zeros((256, 3), np.float32)
    for index, entry in classes.items():
        palette[index] = entry["color"]
    is_painted = labels != BACKGROUND
    pixels = photograph.astype(np.float32)
    pixels[is_painted] += OPACITY * (palette[labels[is_painted]] - pixels[is_painted])
    is_border = np.zeros(labels.shape, bool)
    is_border[:-1] |= labels[:-1] != labels[1:]
    is_border[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    pixels[is_border] = _BORDER
    return Image.fromarray(pixels.round().astype(np.uint8))


def _legend(counts: np.ndarray, classes: dict[int, dict[str, Any]]) -> list[Entry]:
    """Name, share of the mask and colour (None: not painted) of every class there, the largest first."""
    shares = counts / counts.sum()
    order = sorted(np.flatnonzero(counts), key=lambda index: -counts[index])
    return [
        (
            classes[index]["name"],
            f"{shares[index]:.1%}" if shares[index] >= 0.001 else "< 0.1%",
            None if index == BACKGROUND else tuple(classes[index]["color"]),
        )
        for index in map(int, order)
    ]


def _page(photograph: Image.Image, overlay: Image.Image, legend: list[Entry]) -> Image.Image:
    """Photograph, overlay and legend from left to right on white."""
    font = ImageFont.load_default(_TEXT_PIXELS)
    line = _TEXT_PIXELS + 8
    names = max(font.getlength(name) for name, _, _ in legend)
    shares = max(font.getlength(share) for _, share, _ in legend)
    left = 2 * photograph.width + 3 * _MARGIN
    share_right = left + _TEXT_PIXELS + 8 + names + 2 * _MARGIN + shares
    height = max(photograph.height, line * len(legend)) + 2 * _MARGIN
    page = Image.new("RGB", (round(share_right) + _MARGIN, height), _PAPER)
    page.paste(photograph, (_MARGIN, _MARGIN))
    page.paste(overlay, (photograph.width + 2 * _MARGIN, _MARGIN))
    draw = ImageDraw.Draw(page)
    for number, (name, share, color) in enumerate(legend):
        top = _MARGIN + number * line
        square = (left, top, left + _TEXT_PIXELS, top + _TEXT_PIXELS)
        draw.rectangle(square, fill=color, outline=_INK)
        if color is None:
            draw.line(square, fill=_INK)
        middle = top + _TEXT_PIXELS / 2
        draw.text((left + _TEXT_PIXELS + 8, middle), name, fill=_INK, font=font, anchor="lm")
        draw.text((share_right, middle), share, fill=_INK, font=font, anchor="rm")
    return page
