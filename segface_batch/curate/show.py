"""One image of an output as a PNG: the image, its masks in colour over it, and a legend, side by side.

Colours and names come from the output's own class table.  H, W: height and width of the image as drawn.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
from PIL import Image, ImageDraw, ImageFont

from segface_batch.catalog import BACKGROUND, FaceClass
from segface_batch.images import masks
from segface_batch.output import schema
from segface_batch.output.reader import Output, OutputFace, open_output

#: Longer side of the image as drawn, in pixels.
SIDE = 512

#: How much of a pixel the class colour takes; the rest is the image.
OPACITY = 0.55

#: The longest name of a file on Linux's and macOS' file systems.
_NAME_BYTES = 255

#: How many names are searched for ones like an unknown name.
_NAMES = 20_000

_TEXT_PIXELS = 15
_MARGIN = 12
_BORDER = (255, 255, 255)
_FOUND = (255, 220, 0)
_PAPER, _INK = (255, 255, 255), (30, 30, 30)

#: A line of the legend: name, share, colour.
Entry = tuple[str, str, tuple[int, int, int] | None]

#: The columns of `stats` that `draw` needs.
COLUMNS = ("box_left", "box_top", "box_right", "box_bottom", "points")


def show(out: str, image_id: str, target: Path, face: int | None = None) -> Path:
    """Draw the image `image_id` of the output `out` into the PNG `target`, and return `target`.

    `face` is the number of one face; None draws all.  ValueError, in one line, for an unknown or ambiguous image_id, an
    image without a mask and one that is no longer the one annotated; FileNotFoundError and other OSError where the
    image or the output cannot be read.
    """
    output = open_output(out)
    faces = _faces(output, image_id, face)
    drawn = draw(output, faces, faces[0].image(), SIDE)
    _page(drawn.image, drawn.overlay, _legend(drawn.counts, output.classes)).save(target, format="PNG")
    return target


def file_name(image_id: str) -> str:
    """The name of the PNG for an image; that of a long name is cut and tells such images apart by a hash."""
    name = f"{Path(image_id).stem}-overlay.png"
    if len(os.fsencode(name)) <= _NAME_BYTES:
        return name
    tail = f"-{hashlib.sha256(image_id.encode()).hexdigest()[:16]}-overlay.png"
    return os.fsencode(name)[: _NAME_BYTES - len(tail)].decode(errors="ignore") + tail


@dataclass(frozen=True)
class Drawn:
    """An image, the same in the colours of its classes, and `counts` (256,): the mask pixels of each class id."""

    image: Image.Image
    overlay: Image.Image
    counts: np.ndarray


def draw(output: Output, faces: Sequence[OutputFace], image: Image.Image, side: int) -> Drawn:
    """Faces of one image in it, with a longer side of `side` pixels."""
    width, height = (max(1, round(length * side / max(image.size))) for length in image.size)
    scale = np.array([width / image.width, height / image.height])
    small = image.resize((width, height), Image.Resampling.LANCZOS)
    labels = np.full((height, width), BACKGROUND, np.uint8)
    counts = np.zeros(256, np.int64)
    for face in faces:
        mask = face.mask
        counts += np.bincount(mask.ravel(), minlength=256)
        pasted, (left, top) = masks.paste(mask, scale[:, None] * face.transform, width, height)
        under = labels[top : top + len(pasted), left : left + pasted.shape[1]]
        is_painted = (pasted != BACKGROUND) & (pasted != masks.OUTSIDE)
        under[is_painted] = pasted[is_painted]
    counts[masks.OUTSIDE] = 0  # pixels to be ignored, of `measure`
    overlay = _overlay(np.asarray(small), labels, output.classes)
    for face in faces:
        if face.row["points"] is not None:
            _mark(small, face, scale)
    return Drawn(small, overlay, counts)


def _faces(output: Output, image_id: str, face: int | None) -> list[OutputFace]:
    """The chosen faces of one image."""
    is_named = ds.field("image_id") == image_id
    rows = output.stats.to_table(columns=["unit", "seq", "uri", "status", "error"], filter=is_named).to_pylist()
    if not rows:
        raise ValueError(f"no image '{image_id}' in the output{_hint(output, image_id)}")
    if len({(row["unit"], row["seq"]) for row in rows}) > 1:
        raise ValueError(f"several images are called '{image_id}': {', '.join(sorted({row['uri'] for row in rows}))}")
    found = list(output.faces(is_named, COLUMNS))
    if not found and rows[0]["status"] == schema.NO_FACE:
        raise ValueError(f"'{image_id}' has no mask: no face was found in it ({rows[0]['uri']})")
    if not found:
        raise ValueError(f"'{image_id}' has no mask: it failed with '{rows[0]['error']}' ({rows[0]['uri']})")
    chosen = [each for each in found if face in (None, each.row["face"])]
    if not chosen:
        numbers = ", ".join(str(each.row["face"]) for each in found)
        raise ValueError(f"'{image_id}' has no face {face}; choose one of {numbers}")
    return chosen


def _hint(output: Output, image_id: str) -> str:
    names = output.stats.head(_NAMES, columns=["image_id"])["image_id"].unique().to_pylist()
    wanted = image_id.lower()
    near = [name for name in names if wanted in name.lower()] or difflib.get_close_matches(image_id, names, n=3)
    return f"; did you mean {' or '.join(repr(name) for name in near[:3])}?" if near else ""


def _mark(image: Image.Image, face: OutputFace, scale: np.ndarray) -> None:
    """Draw the box and the landmarks of a face that was found into the image at a scale (2,)."""
    pen, row = ImageDraw.Draw(image), face.row
    corners = np.array([[row["box_left"], row["box_top"]], [row["box_right"], row["box_bottom"]]])
    pen.rectangle((corners * scale).ravel().tolist(), outline=_FOUND, width=2)
    for x, y in np.reshape(row["points"], (-1, 2)) * scale:
        pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=_FOUND)


def _overlay(image: np.ndarray, labels: np.ndarray, classes: Sequence[FaceClass]) -> Image.Image:
    """(H, W, 3) RGB and (H, W) class ids -> the image in the colours of its classes, with a line between them."""
    palette = np.zeros((256, 3), np.float32)
    palette[: len(classes)] = [face_class.color for face_class in classes]
    is_painted = labels != BACKGROUND
    pixels = image.astype(np.float32)
    pixels[is_painted] += OPACITY * (palette[labels[is_painted]] - pixels[is_painted])
    is_border = np.zeros(labels.shape, bool)
    is_border[:-1] |= labels[:-1] != labels[1:]
    is_border[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    pixels[is_border] = _BORDER
    return Image.fromarray(pixels.round().astype(np.uint8))


def _legend(counts: np.ndarray, classes: Sequence[FaceClass]) -> list[Entry]:
    """Name, share of the mask and colour (None: not painted) of every class in it, the largest first."""
    shares = counts / max(1, counts.sum())
    order = sorted(np.flatnonzero(counts), key=lambda index: -counts[index])
    return [
        (
            classes[index].name,
            f"{shares[index]:.1%}" if shares[index] >= 0.001 else "< 0.1%",
            None if index == BACKGROUND else classes[index].color,
        )
        for index in map(int, order)
    ]


def _page(image: Image.Image, overlay: Image.Image, legend: list[Entry]) -> Image.Image:
    """Image, overlay and legend from left to right on white."""
    font = ImageFont.load_default(_TEXT_PIXELS)
    line = _TEXT_PIXELS + 8
    names = max((font.getlength(name) for name, _, _ in legend), default=0)
    shares = max((font.getlength(share) for _, share, _ in legend), default=0)
    left = 2 * image.width + 3 * _MARGIN
    share_right = left + _TEXT_PIXELS + 8 + names + 2 * _MARGIN + shares
    height = max(image.height, line * len(legend)) + 2 * _MARGIN
    page = Image.new("RGB", (round(share_right) + _MARGIN, height), _PAPER)
    page.paste(image, (_MARGIN, _MARGIN))
    page.paste(overlay, (image.width + 2 * _MARGIN, _MARGIN))
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
