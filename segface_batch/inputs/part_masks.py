"""Part masks: several files that are the mask of one face, a class each, named ID_CLASS.png as in CelebAMask-HQ.

In a plan they are one image, whose uri has all of them in braces: FOLDER/00001_{hair,nose,skin}.png.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator

from segface_batch.inputs.image import SourceImage

_TOGETHER = re.compile(r"(.*_)\{([^{}]*)\}(\.\w+)", re.DOTALL)


def grouped(images: Iterable[SourceImage], class_names: Collection[str]) -> Iterator[SourceImage]:
    """The images, those that are part masks of one face as one; they must come one after the other."""
    names = "|".join(map(re.escape, sorted(class_names, key=len, reverse=True)))
    pattern = re.compile(rf"(.*)_({names})(\.\w+)", re.DOTALL)

    def face(image: SourceImage) -> object:
        found = pattern.fullmatch(image.uri) if _is_file(image) else None
        return (found[1], found[3]) if found else image

    for _, group in itertools.groupby(images, face):
        parts = list(group)
        found = pattern.fullmatch(parts[0].uri) if _is_file(parts[0]) else None
        if found is None:
            yield from parts
            continue
        classes = sorted(match[2] for part in parts if (match := pattern.fullmatch(part.uri)))
        image_id = parts[0].image_id.removesuffix(f"_{found[2]}{found[3]}")
        yield SourceImage(image_id, f"{found[1]}_{{{','.join(classes)}}}{found[3]}", carried=parts[0].carried)


def parts(image: SourceImage) -> dict[str, SourceImage]:
    """By class name, the part masks of an image of `grouped`; empty for any other."""
    found = _TOGETHER.fullmatch(image.uri) if _is_file(image) else None
    if found is None:
        return {}
    return {name: SourceImage(image.image_id, f"{found[1]}{name}{found[3]}") for name in found[2].split(",")}


def _is_file(image: SourceImage) -> bool:
    return image.place is None and image.cell is None and image.error is None
