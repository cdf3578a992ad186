"""The encoded bytes of a planned unit.

What every image of a unit suffers from is not the fault of an image: it is a `FatalError`.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from segface_batch.errors import FatalError
from segface_batch.inputs.fetch import Answer, fetch_images
from segface_batch.inputs.image import SourceImage
from segface_batch.output.plan import Unit
from segface_batch.pipeline.fatal import fatal

#: When so many images of a unit cannot be read, and none can, the cause is permissions or the network, not the images.
FATAL_IMAGES = 8

#: Errors that all images of a unit share only if the fault is elsewhere, and what to do about it.
_HINTS = {"forbidden": "fix the permissions", "unfetchable": "check the disk, network or server"}


def fetch(unit: Unit, *, allow_unreadable: bool = False, any_length: bool = False) -> list[Answer]:
    """An answer for every image of a unit, in order.

    With `any_length` a file may have become another one since it was planned.
    FatalError, but for `allow_unreadable`, for what is proven to concern more than some images: a storage that refuses
    this user, and a unit of FATAL_IMAGES or more of which every image is forbidden, unfetchable or in no storage.
    """
    with fatal("fetching failed"):
        answers = fetch_images(unit.images, any_length=any_length)
    if not allow_unreadable:
        tried = [(image, answer) for image, answer in zip(unit.images, answers, strict=True) if image.error is None]
        _check_storage(tried)
        _check_shared_fault(unit.number, [answer for _, answer in tried])
    return answers


def _check_storage(tried: Sequence[tuple[SourceImage, Answer]]) -> None:
    """FatalError if a storage refuses this user, unless few and fewer than half of a unit's images lie there."""
    for _, answer in tried:
        if answer.fault is not None and answer.fault.errno == errno.EACCES:
            scheme = _scheme(answer.fault.filename)
            there = [image for image, _ in tried if _scheme(image.place or image.uri) == scheme]
            if len(there) > len(tried) / 2 or len(there) >= FATAL_IMAGES:
                raise FatalError(answer.message)


def _scheme(place: str) -> str:
    scheme = place.partition("://")[0].lower()
    return "s3" if scheme == "s3a" else scheme  # one storage


def _check_shared_fault(number: int, tried: Sequence[Answer]) -> None:
    """FatalError if no image of the unit could be read for reasons that are not the images' own."""
    if len(tried) < FATAL_IMAGES or not all(answer.fault or answer.error in _HINTS for answer in tried):
        return
    errors = sorted({str(answer.error) for answer in tried})
    hints = " and ".join(_HINTS[error] for error in errors if error in _HINTS) or "fix the input"
    raise FatalError(
        f"all {len(tried)} images of unit {number} are {' or '.join(errors)} (first: {tried[0].message}); {hints} "
        "and run again, or add --allow-unreadable to record them as errors"
    )
