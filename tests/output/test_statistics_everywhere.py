"""A statistic is one entry of a table: a new one is found wherever statistics are."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segface_batch.images import statistics
from segface_batch.images.statistics import Statistic
from segface_batch.inputs import sources
from segface_batch.model.face_parser import FaceParser
from segface_batch.output import parts, plan as plans, run as runs, schema
from segface_batch.pipeline.resources import Resources
from segface_batch.pipeline.worker import Worker
from tests import drivers
from tests.output import protocol
from tests.stand_in import Quick

DATASET = Quick.checkpoint.dataset
CLASSES = len(DATASET.classes)

#: One of the whole mask, and one per class.
NEW = (
    Statistic(
        "n_classes_seen",
        pa.int16(),
        "classes",
        "classes in the mask",
        lambda mask: int((mask.class_pixels > 0).sum()),
        source="this test",
    ),
    Statistic(
        "is_seen_",
        pa.bool_(),
        "yes or no",
        "whether the mask has the class",
        lambda mask: mask.class_pixels > 0,
        per_class=True,
        table="shapes",
    ),
)
NAMES = ["n_classes_seen", *(f"is_seen_{name}" for name in DATASET.class_names)]


@pytest.fixture(autouse=True)
def _one_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "STATISTICS", (*statistics.STATISTICS, *NEW))


def test_it_is_in_the_schema_and_its_name_is_reserved() -> None:
    assert schema.stats_schema(DATASET).field(NAMES[0]).type == pa.int16()
    assert [schema.shapes_schema(DATASET).field(name).type for name in NAMES[1:]] == [pa.bool_()] * CLASSES
    for name in NAMES:
        with pytest.raises(ValueError, match=f"column '{name}' cannot be carried"):
            schema.check_carried([name], DATASET)
    described = schema.describe(DATASET)["columns"]
    about = {"table": "stats", "unit": "classes", "meaning": "classes in the mask", "source": "this test"}
    assert described["n_classes_seen"] == about
    assert described["is_seen_<class>"] == {"table": "shapes", "unit": "yes or no", "meaning": NEW[1].meaning}


def test_the_ray_data_function_gives_it() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 192, 192, 3), dtype=np.uint8)
    found = FaceParser("demo-synthetic")({"image": images})
    seen = [np.bincount(mask.ravel(), minlength=CLASSES) > 0 for mask in found["mask"]]
    assert found["n_classes_seen"].tolist() == [int(each.sum()) for each in seen]
    assert found["n_classes_seen"].type == pa.int16()
    assert np.array_equal(np.stack([found[name] for name in NAMES[1:]], axis=1), seen)


def test_a_published_part_has_it_with_its_meaning(tmp_path: Path) -> None:
    drivers.write_images(tmp_path / "in", 3)
    job = drivers.job(tmp_path / "in", tmp_path / "out")
    carried, images = sources.list_images(job.inputs, Counter())
    name = plans.write(runs.plan_folder(job.output), images, Counter(), job.part_rows, carried=carried)
    run = runs.start(job.output, job, None, name, carried)
    (planned,) = runs.read_plan(job.output, run).parts
    protocol.stage(Worker(job, Resources(0, 1), None), planned, 0, parts.Staging(job.output).unit(planned, 0))
    parts.publish(job.output, planned, run)
    stats, shapes = (pq.read_table(tmp_path / "out" / table / "part-00000.parquet") for table in ("stats", "shapes"))
    assert stats["n_classes_seen"].to_pylist() == [CLASSES] * 3  # masks of noise have every class
    assert all(row[name] is True for row in shapes.to_pylist() for name in NAMES[1:])
    for table in (stats, shapes):
        described = json.loads(table.schema.metadata[b"segface_batch"])["columns"]
        assert described["is_seen_<class>"]["meaning"] == "whether the mask has the class"
