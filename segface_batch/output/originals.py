"""The images that an output was made of, read again from where the run read them.

A row of `stats` names its image without secrets; the plan has the place itself, and where an image lies in a tar or
Parquet file.  A copy of an output without its plan has only the `uri` of each row, which is enough for plain files and
objects.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from segface_batch.images.decode import DecodeError, decode
from segface_batch.inputs.fetch import Answer, fetch_images
from segface_batch.inputs.image import SourceImage
from segface_batch.output import plan as plans, run as runs
from segface_batch.output.plan import Plan
from segface_batch.storage.redact import redacted

_UNPLANNED = (
    "; this output lacks _segface/plan, which says where images of tar and Parquet files and of signed URLs are: copy "
    "that folder too"
)
_SIGNED = "; a signed URL that has expired cannot be renewed: its mask is in the output still"


@dataclass(frozen=True)
class Originals:
    """The images of the output `out`, made with `settings`; `plan` is None where it has none any more."""

    out: str
    plan: Plan | None
    settings: Mapping[str, Any]

    def read(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[Image.Image | OSError | ValueError]:
        """The upright image of each row, RGB, or why there is none: FileNotFoundError where it is gone, ValueError
        where it is no longer the one that was annotated, other OSError where it cannot be read.

        The rows are of one unit, whose tar or Parquet file is read once, and the image of several rows in a run too.
        """
        planned = self._planned(rows)
        sources = {row["seq"]: SourceImage(row["image_id"], row["uri"]) for row in rows} | planned
        sources = dict(sorted(sources.items()))
        # After a retry an image may have another length than the plan says.
        answers = dict(zip(sources, fetch_images([*sources.values()], any_length=True), strict=True))
        seq, image = None, None
        for row in rows:
            if image is None or row["seq"] != seq:
                seq = row["seq"]
                image = self._decoded(row, answers[seq], _hint(planned.get(seq)))
            yield image

    def _planned(self, rows: Sequence[Mapping[str, Any]]) -> dict[int, SourceImage]:
        """By seq, the rows' images as the plan has them."""
        if self.plan is None:
            return {}
        number = rows[0]["unit"]
        part = self.plan.parts[bisect.bisect(self.plan.parts, number, key=lambda part: part.first_unit) - 1]
        seqs = {row["seq"] for row in rows}
        try:
            unit = plans.read_unit(runs.plan_folder(self.out), part.file, number - part.first_unit, seqs)
        except FileNotFoundError:
            return {}
        return dict(zip(unit.seqs, unit.images, strict=True))

    def _decoded(self, row: Mapping[str, Any], answer: Answer, hint: str) -> Image.Image | OSError | ValueError:
        uri, size = row["uri"], (row["width"], row["height"])
        if answer.error == "missing":
            return FileNotFoundError(f"there is no image at '{uri}' now; its mask is in the output still{hint}")
        if answer.error == "changed":
            return ValueError(f"'{uri}' changed since it was annotated{hint}")
        if answer.data is None:
            return OSError(f"the image cannot be read again: {answer.message or f'{uri} is {answer.error}'}{hint}")
        try:
            image = decode(answer.data, self.settings["max_pixels"])
        except DecodeError as error:
            return ValueError(f"'{uri}' changed since it was annotated: it is {error} now{hint}")
        if image.size != size:
            return ValueError(
                f"'{uri}' changed since it was annotated: {size[0]} x {size[1]} pixels then, "
                f"{image.width} x {image.height} now{hint}"
            )
        return image


def _hint(source: SourceImage | None) -> str:
    """What to know where that image cannot be read; None is one that the plan lacks."""
    if source is None:
        return _UNPLANNED
    place = source.place or source.uri
    return _SIGNED if redacted(place) != place else ""
