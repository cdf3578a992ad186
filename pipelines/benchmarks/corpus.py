"""The embedded rendered faces: as JPEG files of the size of CelebAMask-HQ's, as folders of many, inside photographs."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from segface_batch.demo import FACES, TRUTH

#: Images and their true masks, of 256 pixels; in the same order.
RENDERED = sorted((FACES / "rendered").glob("*.jpg"))
TRUE_MASKS = [TRUTH / file.relative_to(FACES).with_suffix(".png") for file in RENDERED]

#: Side of the enlarged images in pixels, and quality of every JPEG.
SIDE, QUALITY = 1024, 90


def jpeg(image: Image.Image) -> bytes:
    sink = BytesIO()
    image.save(sink, "JPEG", quality=QUALITY)
    return sink.getvalue()


def enlarged(files: Iterable[Path] = RENDERED) -> list[bytes]:
    """JPEG files of SIDE x SIDE pixels."""
    found = []
    for file in files:
        with Image.open(file) as image:
            found.append(jpeg(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)))
    return found


def pixels(count: int, side: int) -> np.ndarray:
    """(count, side, side, 3) uint8 RGB; the faces come again where there are not so many."""
    found = []
    for file in itertools.islice(itertools.cycle(RENDERED), count):
        with Image.open(file) as image:
            found.append(np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)))
    return np.stack(found)


def labels(file: Path, side: int) -> np.ndarray:
    """A true mask, (side, side) uint8 class ids of CelebAMask-HQ."""
    with Image.open(file) as image:
        return np.asarray(image.resize((side, side), Image.Resampling.NEAREST))


@contextmanager
def folder(count: int, images: Iterable[bytes] | None = None) -> Iterator[Path]:
    """A temporary folder whose folder `in` has `count` files: the enlarged faces, or other images, again and again."""
    files = itertools.cycle(enlarged() if images is None else images)
    with tempfile.TemporaryDirectory() as name:
        (inside := Path(name) / "in").mkdir()
        for number, data in zip(range(count), files, strict=False):
            (inside / f"{number:06d}.jpg").write_bytes(data)
        yield Path(name)


def photograph(width: int, height: int, faces: Iterable[tuple[Image.Image, tuple[int, int]]]) -> Image.Image:
    """An image with faces, each at its left and top edge."""
    scene = Image.new("RGB", (width, height), (90, 110, 100))
    for face, place in faces:
        scene.paste(face, place)
    return scene
