"""Large JPEGs decoded at a reduced size: near the exact crop, with the geometry of the whole image."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from segface_batch.catalog import find
from segface_batch.images.crop import crop_image, crop_whole
from segface_batch.images.decode import DecodeError, decode, decode_reduced
from segface_batch.pipeline.metrics import Clock
from segface_batch.pipeline.resources import Resources
from segface_batch.pipeline.worker import Worker
from tests import drivers
from tests.corpus import ENCODERS, encode, face, oriented, write_broken
from tests.pipeline.test_fetch import Planned

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

LIMIT, SIDE = 1_000_000, 64


def squares(data: bytes, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The exact square of an image and the fast one, as numbers that can be subtracted."""
    whole = decode(data, LIMIT)
    image, width, height = decode_reduced(data, LIMIT, side)
    assert (width, height) == whole.size
    exact, fast = (each.resize((side, side), Image.Resampling.BICUBIC) for each in (whole, image))
    return np.asarray(exact, np.float32), np.asarray(fast, np.float32)


@pytest.mark.parametrize("size", [(128, 128), (129, 135), (257, 400), (300, 1000), (800, 513), (255, 900)])
def test_a_large_jpeg_is_nearly_the_exact_image(size: tuple[int, int]) -> None:
    exact, fast = squares(encode(face(*size, random.Random(1)), "JPEG", quality=95), SIDE)
    assert not np.array_equal(exact, fast)
    assert np.abs(exact - fast).mean() < 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_jpeg_is_upright_and_nothing_is_moved(orientation: int) -> None:
    """A steep ramp each way, whose last column and row reach half a pixel beyond the reduced image."""
    y, x = np.mgrid[:33, :35]
    ramp = Image.fromarray(np.stack([7 * x, 7 * y, 0 * x], axis=-1).astype(np.uint8))
    exact, fast = squares(oriented(ramp, "JPEG", orientation, quality=100, subsampling=0), 16)
    assert np.abs(exact - fast).max() < 3


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize(("tag", "value"), [(274, 6), (700, b'<rdf:Description tiff:Orientation="6"/>')])
def test_width_and_height_of_a_tiff_are_those_of_the_upright_image(tag: int, value: object, compression: str) -> None:
    """Whether EXIF turns it or XMP: Pillow does so when it loads the pixels."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[tag] = value
    data = encode(Image.new("RGB", (3, 2)), "TIFF", tiffinfo=tags, compression=compression)
    image, *size = decode_reduced(data, 6, 1)
    assert (image.size, size) == ((2, 3), [2, 3])


def test_no_detail_of_the_square_is_lost() -> None:
    """Of 255 pixels a fourth would be fewer than 64."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((255, 900), Image.Resampling.BICUBIC)
    exact, fast = squares(encode(image, "JPEG", quality=100, subsampling=0), SIDE)
    assert np.abs(exact - fast).mean() < 2  # 1.2; with a fourth 3.2


@pytest.mark.parametrize("name", ENCODERS)
def test_other_images_are_decoded_as_ever(name: str) -> None:
    data = ENCODERS[name][1](face(203, 150, random.Random(0)))
    image, *size = decode_reduced(data, LIMIT, 76)  # of JPEGs too: less than twice as many pixels
    whole = decode(data, LIMIT)
    assert (image.size, tuple(size), image.tobytes()) == (whole.size, whole.size, whole.tobytes())


def test_every_broken_file_has_the_same_reason(tmp_path: Path) -> None:
    for name, reason in write_broken(tmp_path).items():
        if reason not in (None, "forbidden"):
            with pytest.raises(DecodeError, match=f"^{reason}$"):
                decode_reduced((tmp_path / name).read_bytes(), LIMIT, 8)


def test_the_limit_of_pixels_is_for_the_whole_image() -> None:
    data = encode(face(100, 100, random.Random(0)), "JPEG")
    assert decode_reduced(data, 10_000, 8)[1:] == (100, 100)
    with pytest.raises(DecodeError, match="too_large"):
        decode_reduced(data, 9_999, 8)


@pytest.mark.parametrize("name", ["demo-synthetic", "swinb_lapa_224"])
def test_box_transform_and_landmarks_are_those_of_the_whole_image(name: str) -> None:
    checkpoint, points = find(name), np.array([[200, 200], [400, 200], [300, 300], [230, 400], [370, 400]])
    data = oriented(face(700, 500, random.Random(2)), "JPEG", 6)
    exact = crop_image(decode(data, LIMIT), checkpoint, points)
    fast = crop_whole(*decode_reduced(data, LIMIT, checkpoint.resolution), checkpoint, points)
    assert (fast.box, fast.transform.tolist()) == (exact.box, exact.transform.tolist())
    assert np.array_equal(np.asarray(fast.landmarks), np.asarray(exact.landmarks))
    assert fast.pixels.shape == exact.pixels.shape
    assert np.abs(fast.pixels.astype(int) - exact.pixels).mean() < 2


def test_rows_of_the_worker_differ_in_the_masks_alone(tmp_path: Path) -> None:
    """The stand-in's mask is a level of red, so that the rows show which image was parsed."""
    (tmp_path / "a.jpg").write_bytes(oriented(face(700, 500, random.Random(2)), "JPEG", 6))
    (tmp_path / "m.txt").write_text("a.jpg\n")
    planned, rows = Planned(tmp_path, tmp_path / "m.txt"), []
    for decoding in ("exact", "fast"):
        job = drivers.job(tmp_path / "m.txt", planned.output, decode=decoding)
        worker, clock = Worker(job, Resources(0, 1), None), Clock()
        _, images = worker.fetch(planned.work(), clock)
        rows += worker.rows(images, clock)
    exact, fast = rows
    place = ["status", "width", "height", "box_left", "box_top", "box_right", "box_bottom"]
    assert [fast[name] for name in place] == ["ok", 700, 500, 0, 0, 700, 500] == [exact[name] for name in place]
    assert fast["transform"].tolist() == exact["transform"].tolist()
    assert fast["mask"] != exact["mask"]
