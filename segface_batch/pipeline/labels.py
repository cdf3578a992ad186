"""What `measure` does in place of cropping and a network: the masks that it reads are the result already."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from segface_batch.errors import ImageError
from segface_batch.images import labels, masks
from segface_batch.images.crop import Crop
from segface_batch.inputs import part_masks
from segface_batch.inputs.fetch import Answer
from segface_batch.job import Job
from segface_batch.output.face import FetchedImage
from segface_batch.output.plan import Unit
from segface_batch.pipeline.cropper import Decoded
from segface_batch.pipeline.metrics import Clock

#: A mask comes without its image.
_NO_PIXELS = np.empty((0, 0, 3), np.uint8)


class LabelReader:
    """Reads masks of class ids as a job says; many threads may call it."""

    def __init__(self, job: Job) -> None:
        self.max_pixels, self.n_classes = job.max_pixels, len(job.model.dataset.classes)

    def decoded(self, image: FetchedImage, clock: Clock) -> Decoded:
        """The mask as a face that fills its image, or its error."""
        if image.data is None:
            return Decoded(image, error=image.error)
        try:
            with clock.of("decode"):
                found = labels.read(image.data, self.n_classes, self.max_pixels)
        except ImageError as error:
            return Decoded(image, error=str(error))
        height, width = found.shape
        return Decoded(image, (width, height), (Crop(_NO_PIXELS, None, (0, 0, width, height)),), 1, labels=found)


def with_parts(unit: Unit) -> tuple[Unit, list[list[str]]]:
    """The unit with each part mask as an image of its own, and for each image of the unit the class names of its parts
    (none where it is a mask by itself)."""
    found = [part_masks.parts(image) for image in unit.images]
    files = [
        file for image, parts in zip(unit.images, found, strict=True) for file in (parts.values() if parts else [image])
    ]
    return replace(unit, images=tuple(files), seqs=tuple(range(len(files)))), [[*parts] for parts in found]


def joined(answers: list[Answer], names: list[list[str]], job: Job) -> list[Answer]:
    """The answers for the images of a unit, from those for the files of `with_parts`."""
    left = iter(answers)
    return [_painted([next(left) for _ in parts], parts, job) if parts else next(left) for parts in names]


def _painted(answers: list[Answer], names: list[str], job: Job) -> Answer:
    """One mask of the part masks, encoded again."""
    for answer in answers:
        if answer.data is None:
            return answer
    parts = {name: answer.data for name, answer in zip(names, answers, strict=True) if answer.data is not None}
    try:
        return Answer(masks.encode(labels.painted(parts, job.model.dataset, job.max_pixels)))
    except ImageError as error:
        return Answer(None, str(error))
