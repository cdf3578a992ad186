"""The encoded bytes of a planned unit.

What every image of a unit suffers from is not the fault of an image: it is a `FatalError`.
"""

from __future__ import annotations

from collections.abc import Sequence

from segface_batch.errors import FatalError
from segface_batch.inputs.fetch import Answer, fetch_images
from segface_batch.output.plan import Unit
from segface_batch.pipeline.fatal import fatal

#: When so many images of a unit cannot be read, and none can, the cause is permissions or the network, not the images.
FATAL_IMAGES = 8

#: Errors that all images of a unit share only if the fault is elsewhere, and what to do about it.
_HINTS = {"forbidden": "fix the permissions", "unfetchable": "check the disk, network or server"}


def fetch(unit: Unit, *, allow_unreadable: bool = False, any_length: bool = False) -> list[Answer]:
    """An answer for every image of a unit, in order.

    With `any_length` a file may have become another one since it was planned.
    FatalError where the storage gives nothing at all, and, but for `allow_unreadable`, for a unit of FATAL_IMAGES or
    more of which every image is forbidden or unfetchable.
    """
    with fatal("fetching failed"):
        answers = fetch_images(unit.images, any_length=any_length)
    if not allow_unreadable:
        _check_shared_fault(unit, answers)
    return answers


def _check_shared_fault(unit: Unit, answers: Sequence[Answer]) -> None:
    """FatalError if no image of the unit could be read for reasons that are not the images' own."""
    tried = [answer for answer, image in zip(answers, unit.images, strict=True) if image.error is None]
    errors = sorted({str(answer.error) for answer in tried})
    if len(tried) < FATAL_IMAGES or not set(errors) <= set(_HINTS):
        return
    hints = " and ".join(_HINTS[error] for error in errors)
    raise FatalError(
        f"all {len(tried)} images of unit {unit.number} are {' or '.join(errors)} (first: {tried[0].message}); {hints} "
        "and run again, or add --allow-unreadable to record them as errors"
    )
