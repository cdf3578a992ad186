"""Masks that exist: files of class ids, and part masks as CelebAMask-HQ has them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segface_batch.catalog import CELEBAMASK_HQ
from segface_batch.errors import ImageError
from segface_batch.images import labels
from segface_batch.images.masks import OUTSIDE
from tests import filled

REFERENCE = filled.REFERENCE / "labels"

IDS = np.array([[0, 1, 2], [3, OUTSIDE, 0]], np.uint8)


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    sink = io.BytesIO()
    image.save(sink, form)
    return sink.getvalue()


def palette(pixels: np.ndarray) -> Image.Image:
    image = Image.fromarray(pixels).convert("P")
    image.putdata(pixels.ravel().tolist())
    image.putpalette([value for index in range(256) for value in (255 - index, index, 7)])
    return image


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(IDS),
        palette(IDS),
        Image.fromarray(np.stack([IDS] * 3, axis=-1)),
        Image.fromarray(np.stack([IDS, IDS, IDS, np.full_like(IDS, 200)], axis=-1)),
    ],
    ids=["grey", "palette", "grey in three channels", "grey in three channels and opacity"],
)
def test_a_pixel_of_an_image_is_its_class_id(image: Image.Image) -> None:
    for form in ("PNG", "TIFF"):
        assert np.array_equal(labels.read(encoded(image, form), 4, 6), IDS)


def test_a_mask_of_one_bit_has_two_classes() -> None:
    bits = np.array([[0, 1, 1], [1, 0, 0]], bool)
    assert np.array_equal(labels.read(encoded(Image.fromarray(bits)), 2, 6), bits)
    skin = CELEBAMASK_HQ.class_names.index("skin")
    assert np.array_equal(labels.painted({"skin": encoded(Image.fromarray(bits))}, CELEBAMASK_HQ, 6), bits * skin)


def test_ids_below_the_number_of_classes_and_255_are_labels_and_no_others() -> None:
    assert labels.read(encoded(Image.fromarray(IDS)), 4, 100).max() == OUTSIDE
    with pytest.raises(ImageError, match="bad_labels"):
        labels.read(encoded(Image.fromarray(IDS)), 3, 100)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "empty"),
        (b"no image", "unreadable"),
        (encoded(Image.fromarray(IDS))[:45], "unreadable"),  # within its pixels
        (encoded(Image.fromarray(IDS), "JPEG"), "bad_labels"),  # its ids are smeared
        (encoded(Image.new("RGB", (2, 2), (1, 2, 3))), "bad_labels"),  # a drawing
        (encoded(Image.fromarray(IDS.astype(np.uint16))), "bad_labels"),
        (encoded(Image.new("L", (11, 10))), "too_large"),
    ],
)
def test_what_are_no_labels_has_a_word(data: bytes, word: str) -> None:
    with pytest.raises(ImageError) as caught:
        labels.read(data, 4, 109)
    assert str(caught.value) == word


def test_part_masks_are_painted_as_the_official_loader_paints_them() -> None:
    """Recorded from it: overlapping parts, values of 1 and of 255, files in any order."""
    files = sorted((REFERENCE / "celebamask_parts").iterdir(), reverse=True)
    parts = {file.stem.partition("_")[2]: file.read_bytes() for file in files}
    assert len(parts) > 10
    found = labels.painted(parts, CELEBAMASK_HQ, 512 * 512)
    assert np.array_equal(found, np.asarray(Image.open(REFERENCE / "celebamask_512.png")))


def part(left: int, right: int, width: int = 6) -> bytes:
    pixels = np.zeros((2, width), np.uint8)
    pixels[:, left:right] = 255
    return encoded(Image.fromarray(pixels))


def test_a_later_class_lies_over_an_earlier_one() -> None:
    found = labels.painted({"hat": part(3, 6), "skin": part(0, 4)}, CELEBAMASK_HQ, 100)
    skin, hat = (CELEBAMASK_HQ.class_names.index(name) for name in ("skin", "hat"))
    assert found.tolist() == [[skin] * 3 + [hat] * 3] * 2


def test_part_masks_of_two_sizes_or_none_are_no_labels() -> None:
    for parts in ({"skin": part(0, 4), "hat": part(0, 4, width=7)}, {}, {"beard": part(0, 4)}):
        with pytest.raises(ImageError, match="bad_labels"):
            labels.painted(parts, CELEBAMASK_HQ, 100)


def test_the_files_of_the_reference_are_there() -> None:
    assert isinstance(REFERENCE, Path)
    assert (REFERENCE / "celebamask_512.png").exists()
