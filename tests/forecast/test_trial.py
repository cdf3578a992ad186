"""What a worker measures of units that it annotates, without Ray."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from segface_batch import Job
from segface_batch.forecast.sample import is_one_request, shares
from segface_batch.forecast.trial import PLACE, Trial
from segface_batch.inputs.image import Cell, SourceImage
from segface_batch.output import plan as plans, schema
from segface_batch.pipeline.resources import Resources
from tests import drivers


def test_images_faces_and_bytes_of_each_unit_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    drivers.write_images(folder, 8)
    (folder / "0003.png").write_bytes(b"no image")
    images = [SourceImage(path.name, str(path), None, path.stat().st_size) for path in sorted(folder.iterdir())]
    units = [plans.to_parquet(plans.table(some, 0, [len(some)], pa.schema([]))) for some in (images[:5], images[5:])]
    trial = Trial(drivers.job("s3://b/in", PLACE), Resources(0, 1), None, 1)
    assert trial.batch_size() == 4
    measured = trial.run(units)
    assert (measured.fatal, measured.images, measured.faces) == (None, (5, 3), (4, 3))
    assert measured.n_bytes == tuple(sum(image.n_bytes for image in some) for some in (images[:5], images[5:]))
    assert measured.rows is not None
    assert measured.rows["image_id"].to_pylist() == [image.image_id for image in images]
    assert measured.rows["status"].to_pylist() == [schema.OK] * 3 + [schema.ERROR] + [schema.OK] * 4
    assert 0 < measured.work["network"] <= measured.seconds
    assert measured.work["detect"] == 0
    assert measured.memory > 50e6  # Python and pyarrow alone take more


def test_the_work_of_decoding_includes_that_of_detecting(tmp_path: Path) -> None:
    drivers.write_images(tmp_path / "in", 1)
    image = SourceImage("0", str(tmp_path / "in" / "0000.png"))
    trial = Trial(drivers.job("s3://b/in", PLACE, faces="detect", min_face=150), Resources(0, 1), None, 1)
    measured = trial.run([plans.to_parquet(plans.table([image], 0, [1], pa.schema([])))])
    assert measured.fatal is None
    assert measured.work["decode"] > measured.work["detect"] > 0


def test_batches_are_timed_and_leave_the_network_as_it_was() -> None:
    job = Job("s3://b/in", PLACE, checkpoint=drivers.CHECKPOINT, engine="torch")
    trial = Trial(job, Resources(0, 1), None, 1)
    before = trial.batch_size()
    assert list(trial.network_seconds([1, 2])) == [1, 2]
    assert trial.batch_size() == before


def test_every_unit_is_tried_once_by_one_actor() -> None:
    assert shares([b"0", b"1", b"2", b"3", b"4"], 2) == [[b"0", b"2", b"4"], [b"1", b"3"]]
    assert shares([b"0"], 1) == [[b"0"]]


def test_images_in_one_file_are_one_request() -> None:
    loose = SourceImage("a", "/a")
    assert not is_one_request([loose, loose])
    assert is_one_request([loose._replace(offset=512)])
    assert is_one_request([loose._replace(cell=Cell("image", 0, 0, 9))])
