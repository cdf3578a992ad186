"""`FaceParser` as an object and as a Ray Data function, and the network that it shares with the pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segface_batch import FaceParser, Job, catalog, storage
from segface_batch.images import statistics
from segface_batch.images.crop import crop_image
from segface_batch.model.weights import locate
from segface_batch.pipeline.resources import Resources
from segface_batch.pipeline.worker import Worker
from tests import drivers
from tests.conftest import PORTRAITS, SMALL
from tests.s3_server import S3Server


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """The two portraits and one of them mirrored, of different sizes."""
    found = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(PORTRAITS.glob("*.jpg"))]
    return [*found, found[0][:, ::-1].copy()]


@pytest.fixture(scope="module")
def one_by_one(weights: Path, images: list[np.ndarray]) -> np.ndarray:
    return FaceParser(SMALL, weights=str(weights), device="cpu", engine="torch").parse(images)


def test_a_batch_that_is_not_full_gives_each_image_its_mask(
    weights: Path, images: list[np.ndarray], one_by_one: np.ndarray
) -> None:
    masks = FaceParser(SMALL, weights=str(weights), device="cpu", engine="torch", batch_size=2).parse(images)
    assert (masks.shape, masks.dtype) == ((3, 512, 512), np.uint8)
    # Another batch size adds in another order; a pixel on the edge between two classes may change sides.
    assert (masks == one_by_one).mean(axis=(1, 2)).min() > 0.9999


def test_bf16_gives_nearly_the_same_masks(weights: Path, images: list[np.ndarray], one_by_one: np.ndarray) -> None:
    parser = FaceParser(SMALL, weights=str(weights), device="cpu", engine="torch", precision="bf16")
    same = (parser.parse(images[:1]) == one_by_one[:1]).mean()
    # Filled weights have many near ties; trained ones fewer.  Equal to the last pixel would mean that fp32 ran.
    assert 0.8 < same < 1


def test_no_images_give_no_masks(weights: Path) -> None:
    assert FaceParser(SMALL, weights=str(weights), device="cpu").parse([]).shape == (0, 512, 512)


def test_a_ray_data_batch_gains_masks_and_statistics(
    weights: Path, images: list[np.ndarray], one_by_one: np.ndarray
) -> None:
    parser = FaceParser(SMALL, weights=str(weights), device="cpu", engine="torch")
    batch = {"image": np.array([images[0], images[2]]), "name": np.array(["one", "mirrored"])}
    found, masks = parser(batch), one_by_one[[0, 2]]
    names = parser.checkpoint.dataset.class_names
    columns = statistics.columns([], names)
    assert list(found) == ["image", "name", "mask", "error", *columns]
    assert {name: found[name].type for name in columns} == {name: values.type for name, values in columns.items()}
    assert found["image"] is batch["image"]
    assert np.array_equal(found["mask"], masks)
    counts = [np.bincount(mask.ravel(), minlength=len(names)).tolist() for mask in masks]
    assert [[found[f"px_{name}"][row].as_py() for name in names] for row in range(2)] == counts
    crop = crop_image(Image.fromarray(images[0]), parser.checkpoint)
    told = parser.network.parse(crop.pixels[None]).confidence
    assert told is not None
    assert found["confidence"][0].as_py() == pytest.approx(told[0].overall)
    assert found["skin_light"].null_count == 0  # measured on the crop's pixels
    assert found["error"].to_pylist() == [None, None]


def test_a_worker_gets_weights_with_the_storage_options(
    s3_server: S3Server, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGFACE_BATCH_CACHE", str(tmp_path / "cache"))
    demo = catalog.find("demo-synthetic")
    s3_server.client().upload_file(str(locate(demo)), s3_bucket, "mine.safetensors")
    options = drivers.storage_options(s3_server.endpoint, tmp_path / "options.json")
    place = f"s3://{s3_bucket}/mine.safetensors"
    job = Job(str(PORTRAITS), str(tmp_path / "out"), checkpoint=demo.name, weights=place, storage_options=str(options))
    try:
        assert Worker(job, Resources(num_gpus=0, threads=1), None).checkpoint == demo
    finally:
        storage.configure(None)
