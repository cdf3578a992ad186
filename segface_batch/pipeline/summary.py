"""How a run ended, as data and as a few lines for a person."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segface_batch.output import schema
from segface_batch.progress import duration


@dataclass(frozen=True)
class Summary:
    """The whole output: images by status (an image with a face in it is ok), rows by status, error rows by error, what
    the inputs held besides images; and the images that this run parsed in `seconds`, from the first unit handed out to
    the last part written."""

    output: str
    images_by_status: dict[str, int]
    status: dict[str, int]
    errors: dict[str, int]
    skipped: dict[str, int]
    parsed: int
    seconds: float

    @property
    def images(self) -> int:
        """All planned images."""
        return sum(self.images_by_status.values())

    @classmethod
    def of(cls, output: str, manifest: Mapping[str, Any], parsed: int, seconds: float) -> Summary:
        """The summary of an output with that manifest.json."""
        images, status, errors = (manifest[key] for key in ("images_by_status", "status", "errors"))
        return cls(output, images, status, errors, manifest["skipped"], parsed, seconds)


#: What the summary says of images, by status.
_IMAGES = {schema.OK: "with faces", schema.NO_FACE: "without", schema.ERROR: "with errors"}


def report(summary: Summary) -> str:
    """The end of a run in a few lines, with the next command to try."""
    counts = [(summary.images_by_status.get(status, 0), what) for status, what in _IMAGES.items()]
    images = ", ".join(f"{count:,} {what}" for count, what in counts if count)
    faces = summary.status.get(schema.OK, 0)
    lines = [f"{summary.images:,} images: {images}; {faces:,} faces"]
    if summary.errors:
        lines.append(f"  errors: {_counts(summary.errors)}")
    if summary.skipped:
        lines.append(f"  also in the input: {_counts(summary.skipped)}")
    if summary.parsed:
        rate = summary.parsed / summary.seconds
        lines.append(f"  this run: {summary.parsed:,} images in {duration(summary.seconds)}, {rate:.1f} images/s")
    else:
        lines.append("  no image was left to annotate")
    out = shlex.quote(summary.output)
    lines += [
        f"  in {summary.output}: stats, shapes and masks (Parquet)",
        f"next: segface-batch query {out} \"select * from stats where status = 'ok' limit 5\"",
        f"      segface-batch show {out} IMAGE_ID",
    ]
    return "\n".join(lines)


def _counts(counts: dict[str, int]) -> str:
    most_first = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {name}" for name, count in most_first)
