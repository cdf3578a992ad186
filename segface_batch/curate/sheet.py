"""A contact sheet: many faces of an output, each image beside its mask in colour, over a legend of the classes."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from segface_batch.catalog import BACKGROUND, FaceClass
from segface_batch.curate import show
from segface_batch.output.reader import open_output

log = logging.getLogger(__name__)

#: Faces of a sheet, the longer side of their images in pixels, and how many are in a row.
IMAGES, SIDE, COLUMNS = 28, 176, 4

_TEXT_PIXELS = 15
_MARGIN = 6
_PAPER, _INK = (255, 255, 255), (30, 30, 30)


def sheet(out: str, target: Path, images: int = IMAGES) -> Path:
    """Draw the first `images` faces of the output `out` into the PNG `target`, each in its image, and return it.

    Those whose image cannot be read again, or is no longer the one annotated, are left out; where that is so of all,
    OSError or ValueError, and ValueError where no row has a mask.
    """
    output = open_output(out)
    faces = itertools.islice(output.faces(columns=show.COLUMNS), images)
    drawn, lost = [], []
    for face, image in output.images(faces):
        if isinstance(image, Exception):
            lost.append(image)
        else:
            drawn.append(show.draw(output, [face], image, SIDE))
    if lost and not drawn:
        raise lost[0]
    if lost:
        log.warning("%d of %d faces are left out (first: %s)", len(lost), len(lost) + len(drawn), lost[0])
    if not drawn:
        raise ValueError(f"no image of '{out}' has a mask; ask stats for status and error")
    cell_width, cell_height = 2 * SIDE + 3 * _MARGIN, SIDE + _MARGIN
    columns = min(COLUMNS, len(drawn))
    legend = _legend(columns * cell_width, [each for i, each in enumerate(output.classes) if i != BACKGROUND])
    height = -(-len(drawn) // columns) * cell_height + _MARGIN
    page = Image.new("RGB", (columns * cell_width, height + legend.height), _PAPER)
    for number, each in enumerate(drawn):
        left, top = number % columns * cell_width + _MARGIN, number // columns * cell_height + _MARGIN
        page.paste(each.image, (left, top))
        page.paste(each.overlay, (left + SIDE + _MARGIN, top))
    page.paste(legend, (0, height))
    page.save(target, format="PNG")
    return target


def _legend(width: int, classes: Sequence[FaceClass]) -> Image.Image:
    """Colour and name of each class, in as many lines as the width needs."""
    font = ImageFont.load_default(_TEXT_PIXELS)
    line, gap = _TEXT_PIXELS + 8, 18
    places, left, top = [], _MARGIN, _MARGIN
    for face_class in classes:
        needed = _TEXT_PIXELS + 6 + round(font.getlength(face_class.name))
        if left + needed > width - _MARGIN:
            left, top = _MARGIN, top + line
        places.append((left, top))
        left += needed + gap
    legend = Image.new("RGB", (width, top + line), _PAPER)
    pen = ImageDraw.Draw(legend)
    for face_class, (x, y) in zip(classes, places, strict=True):
        pen.rectangle((x, y, x + _TEXT_PIXELS, y + _TEXT_PIXELS), fill=face_class.color, outline=_INK)
        pen.text((x + _TEXT_PIXELS + 6, y + _TEXT_PIXELS / 2), face_class.name, fill=_INK, font=font, anchor="lm")
    return legend
