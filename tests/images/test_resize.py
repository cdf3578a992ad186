"""torch's square of an image beside Pillow's: how much they differ at most."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image

from segface_batch.catalog import find
from segface_batch.images.crop import crop_image
from segface_batch.images.decode import decode
from segface_batch.images.resize import bicubic, near_bicubic
from segface_batch.inputs.image import SourceImage
from segface_batch.job import Job
from segface_batch.output.face import FetchedImage
from segface_batch.pipeline.cropper import Cropper
from segface_batch.pipeline.metrics import Clock
from tests.conftest import PORTRAITS
from tests.corpus import encode, face

#: Width and height: smaller and larger than the square, wide, and tall, where Pillow's passes may change places.
SIZES = [(1024, 1024), (512, 512), (256, 256), (1500, 700), (700, 500), (178, 218), (300, 500), (640, 900), (3, 2)]
SIDES = (192, 448, 512)


def apart(image: Image.Image, side: int) -> np.ndarray:
    return np.abs(near_bicubic(image, side).astype(int) - bicubic(image, side))


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("size", SIZES)
def test_a_photograph_is_a_level_off_in_few_pixels(size: tuple[int, int], side: int) -> None:
    for seed in range(3):
        levels = apart(face(*size, random.Random(seed)), side)
        assert (levels.shape, levels.dtype.kind) == ((side, side, 3), "i")
        assert levels.max() <= 2
        assert (levels > 0).mean() < 0.03
        assert (levels > 1).mean() < 0.0001


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("size", SIZES)
def test_noise_of_black_and_white_is_at_most_two_levels_off(size: tuple[int, int], side: int) -> None:
    """The worst case: the weights' errors add up, every pixel overshoots, and each pass clips it."""
    noise = np.random.default_rng(0).integers(0, 2, (size[1], size[0], 3), dtype=np.uint8) * 255
    levels = apart(Image.fromarray(noise), side)
    assert levels.max() <= 2
    assert (levels > 0).mean() < 0.03


def test_the_portraits_are_nearly_the_same() -> None:
    for path in sorted(PORTRAITS.glob("*.jpg")):
        levels = apart(decode(path.read_bytes(), 10**8), 512)
        assert levels.max() <= 2
        assert (levels > 0).mean() < 0.01


def test_the_crop_of_a_checkpoint_may_be_near() -> None:
    """Whole images, and Helen's square, which is cut out first."""
    image = face(700, 500, random.Random(2))
    points = np.random.default_rng(0).uniform(150, 400, (68, 2))
    for name, given in (("mobilenet_celeba_512", None), ("swinb_helen_512", points)):
        exact, near = crop_image(image, find(name), given), crop_image(image, find(name), given, near=True)
        assert (near.box, near.transform.tolist()) == (exact.box, exact.transform.tolist())
        levels = np.abs(near.pixels.astype(int) - exact.pixels)
        assert 0 < levels.max() <= 2


def test_a_job_asks_for_the_near_square() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 2, (300, 400, 3), dtype=np.uint8) * 255)
    image = FetchedImage(0, 0, SourceImage("a.png", "a.png"), {}, encode(noise, "PNG"))
    for decode_as, resized in (("exact", bicubic), ("near", near_bicubic)):
        job = Job(str(PORTRAITS), "out", checkpoint="demo-synthetic", decode=decode_as)
        (one,) = Cropper(job, job.model, "cpu").decoded(image, Clock()).faces()
        assert one.crop is not None
        assert np.array_equal(one.crop.pixels, resized(noise, job.model.resolution))
