"""The main job, end to end: real Ray, real files, a network with filled weights."""

from __future__ import annotations

import http.server
import json
import random
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from segface_batch import FaceParser, Job, annotate, catalog
from segface_batch.images import masks
from segface_batch.output import schema
from segface_batch.output.verify import verify
from segface_batch.progress import Silence
from tests import corpus, drivers, filled
from tests.conftest import PORTRAITS, SMALL

pytestmark = pytest.mark.usefixtures("ray_session")

ROOT = Path(__file__).parents[2]
CLASSES = catalog.find(SMALL).dataset.class_names


def rows(out: Path, data_set: str = "stats") -> list[dict[str, Any]]:
    return pq.read_table(out / data_set).to_pylist()


def files(out: Path) -> dict[str, tuple[int, bytes]]:
    """Time of change and content of every file of an output."""
    found = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


@pytest.fixture(scope="module")
def expected(weights: Path) -> Iterator[np.ndarray]:
    """(2, 512, 512) masks of the portraits in the order of their names, from FaceParser, without Ray.

    With as many threads as an actor has: other threads add in another order, and a pixel or two change sides.
    """
    threads = torch.get_num_threads()
    parser = FaceParser(SMALL, weights=str(weights), threads=1)
    yield parser.parse(Image.open(path) for path in sorted(PORTRAITS.glob("*.jpg")))
    torch.set_num_threads(threads)


def test_a_folder_becomes_statistics_and_masks(output: Path, expected: np.ndarray) -> None:
    names = ["eileen_collins.jpg", "grace_hopper.jpg"]
    for seq, (row, mask_row) in enumerate(zip(rows(output), rows(output, "masks"), strict=True)):
        counts = np.bincount(expected[seq].ravel(), minlength=len(CLASSES)).tolist()
        with Image.open(PORTRAITS / names[seq]) as image:
            width, height = image.size
        expected_row = {
            "image_id": names[seq], "uri": str(PORTRAITS / names[seq]), "unit": 0, "seq": seq, "face": 0, "n_faces": 1,
            "status": "ok", "error": None, "width": width, "height": height,
            "box_left": 0.0, "box_top": 0.0, "box_right": width, "box_bottom": height, "score": None,
            "points": None, "transform": [width / 512, 0.0, 0.0, 0.0, height / 512, 0.0], "mask_pixels": 512**2,
            **{f"px_{name}": count for name, count in zip(CLASSES, counts, strict=True)},
            **{f"frac_{name}": np.float32(count / 512**2) for name, count in zip(CLASSES, counts, strict=True)},
        }  # fmt: skip
        assert {name: row[name] for name in expected_row} == expected_row
        assert 0 < row["confidence"] < 1
        shapes = rows(output, "shapes")[seq]
        assert {name: shapes[name] for name in schema.SHARED} == {name: row[name] for name in schema.SHARED}
        seen = [name for name, count in zip(CLASSES, counts, strict=True) if count]
        assert [name for name in CLASSES if shapes[f"x_{name}"] is not None] == seen
        assert {name: mask_row[name] for name in schema.KEY} == {name: row[name] for name in schema.KEY}
        assert mask_row["mask"]["path"] is None
        assert np.array_equal(masks.decode(mask_row["mask"]["bytes"]), expected[seq])

    dataset = catalog.find(SMALL).dataset
    assert pq.read_schema(output / "stats" / "part-00000.parquet").remove_metadata() == schema.stats_schema(dataset)
    assert pq.read_schema(output / "masks" / "part-00000.parquet").remove_metadata() == schema.masks_schema()
    assert pq.read_schema(output / "shapes" / "part-00000.parquet").remove_metadata() == schema.shapes_schema(dataset)


def test_an_output_with_other_columns_is_not_gone_on_with(output: Path, weights: Path, tmp_path: Path) -> None:
    shutil.copytree(output, tmp_path / "out")
    place = tmp_path / "out" / "_segface" / "run.json"
    run = json.loads(place.read_text()) | {"schema_version": 1}
    del run["settings"]["engine"], run["settings"]["compile"]  # which there was not then
    place.write_text(json.dumps(run))
    with pytest.raises(ValueError, match="with other columns; go on with that version, or name another output folder"):
        annotate(Job(str(PORTRAITS), str(tmp_path / "out"), checkpoint=SMALL, weights=str(weights)))


@pytest.mark.slow
def test_broken_images_become_rows_and_change_no_others(weights: Path, tmp_path: Path) -> None:
    clean, mixed = tmp_path / "clean", tmp_path / "mixed"
    corpus.write_corpus(clean, good=24, seed=3)
    corpus.write_corpus(mixed, good=24, seed=3)
    expected = corpus.write_broken(mixed)
    for source in (clean, mixed):
        job = Job(str(source), str(tmp_path / f"out-{source.name}"), checkpoint=SMALL, weights=str(weights))
        annotate(job)
    found = {row["image_id"]: row for row in rows(tmp_path / "out-mixed")}
    for name, reason in expected.items():
        assert (found[name]["error"] if name in found else None) == reason, name
        if reason is not None:
            assert (found[name]["status"], found[name]["n_faces"], found[name]["px_hair"]) == ("error", 0, None)
    for data_set in schema.TABLES:
        without_place = [
            {
                row["image_id"]: {name: row[name] for name in row if name not in ("unit", "seq", "uri")}
                for row in rows(tmp_path / out, data_set)
            }
            for out in ("out-clean", "out-mixed")
        ]
        assert len(without_place[0]) == 24
        assert without_place[0] == {name: without_place[1][name] for name in without_place[0]}


def test_large_jpegs_may_be_decoded_in_part(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    image = corpus.face(700, 500, random.Random(2))
    (tmp_path / "in" / "a.jpg").write_bytes(corpus.oriented(image, "JPEG", 6))
    (tmp_path / "in" / "b.png").write_bytes(corpus.encode(image, "PNG"))
    found = {}
    for decode in ("exact", "fast"):
        annotate(drivers.job(tmp_path / "in", tmp_path / decode, decode=decode))
        found[decode] = rows(tmp_path / decode), rows(tmp_path / decode, "masks")
        run = json.loads((tmp_path / decode / "_segface" / "run.json").read_text())
        assert run["settings"]["decode"] == decode
    (exact, exact_masks), (fast, fast_masks) = found["exact"], found["fast"]
    assert (exact[1], exact_masks[1]) == (fast[1], fast_masks[1])
    assert exact_masks[0]["mask"] != fast_masks[0]["mask"]
    place = [name for name, *_ in schema.COLUMNS]
    assert {name: exact[0][name] for name in place} == {name: fast[0][name] for name in place}


def test_the_same_job_again_changes_nothing_and_another_is_refused(output: Path, weights: Path) -> None:
    job = Job(str(PORTRAITS), str(output), checkpoint=SMALL, weights=str(weights))
    before = files(output)
    again = annotate(job)
    assert (again.parsed, again.status, again.errors) == (0, {"ok": 2}, {})
    with pytest.raises(ValueError, match="was made with max_pixels 80000000, not 1000"):
        annotate(replace(job, max_pixels=1000))
    with pytest.raises(ValueError, match="was made with decode exact, not fast"):
        annotate(replace(job, decode="fast"))
    assert files(output) == before


def test_many_images_become_parts_in_the_order_of_the_plan(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(25):
        (tmp_path / "in" / f"{number:02d}.png").write_bytes(b"" if number % 3 else b"x")
    job = Job(str(tmp_path / "in"), str(tmp_path / "out"), checkpoint=SMALL, weights=str(weights), part_rows=10)
    summary = annotate(job)
    assert summary.errors == {"empty": 16, "unreadable": 9}
    parts = sorted(path.name for path in (tmp_path / "out" / "stats").iterdir())
    assert parts == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert [row["image_id"] for row in rows(tmp_path / "out")] == [f"{number:02d}.png" for number in range(25)]
    keys = [(row["unit"], row["seq"]) for row in rows(tmp_path / "out")]
    assert keys[7:12] == [(0, 7), (1, 0), (1, 1), (2, 0), (2, 1)]
    manifest = json.loads((tmp_path / "out" / "_segface" / "manifest.json").read_text())
    assert (manifest["rows"], manifest["images"], manifest["status"]) == (25, 25, {"error": 25})
    assert not (tmp_path / "out" / "_segface" / "staging").exists()


def test_every_kind_of_input_goes_into_one_job_and_columns_are_carried(tmp_path: Path) -> None:
    drivers.write_images(tmp_path / "loose", 6)
    images = sorted((tmp_path / "loose").iterdir())
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        for image in images[:3]:
            shard.add(image, f"deep/{image.name}")
    images = [{"bytes": image.read_bytes(), "path": image.name} for image in images[:2]]
    pq.write_table(pa.table({"image": images, "license": ["cc0", None]}), tmp_path / "rows.parquet")
    (tmp_path / "list.csv").write_text("uri,license\nloose/0000.png,mine\nloose/absent.png,\n")
    inputs = tuple(str(tmp_path / name) for name in ("loose", "shard.tar", "rows.parquet", "list.csv"))
    out = tmp_path / "out"
    summary = annotate(drivers.job(inputs, out, columns=("license",)))
    assert (summary.status, summary.errors) == ({"error": 1, "ok": 12}, {"missing": 1})
    found = rows(out)
    assert [(row["image_id"], row["license"]) for row in found[6:]] == [
        ("shard.tar/deep/0000.png", None), ("shard.tar/deep/0001.png", None), ("shard.tar/deep/0002.png", None),
        ("rows.parquet/0000.png", "cc0"), ("rows.parquet/0001.png", None),
        ("list.csv/loose/0000.png", "mine"), ("list.csv/loose/absent.png", None),
    ]  # fmt: skip
    same = [row["mask"] for row in rows(out, "masks")]
    assert same[0] == same[6] == same[9] == same[11]
    assert (same[0] != same[1], same[12]) == (True, None)
    assert verify(str(out)).complete


def test_a_folder_without_images_is_refused_before_ray(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").touch()
    job = Job(str(tmp_path / "in"), str(tmp_path / "out"), checkpoint=SMALL, weights=str(weights))
    with pytest.raises(ValueError, match=r"no images in '.*/in' \(1 \.txt files\)"):
        annotate(job)


def test_workers_do_not_get_what_signs_the_inputs(tmp_path: Path) -> None:
    drivers.write_images(tmp_path / "in", 1)
    (tmp_path / "in" / "list.txt").write_text("0000.png\n")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "in"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        manifest = f"http://127.0.0.1:{server.server_port}/list.txt?X-Amz-Signature=secret"
        annotate(drivers.job(manifest, tmp_path / "out", network="tests.stand_in:Told"))
        server.shutdown()
    assert [(row["status"], row["frac_background"]) for row in rows(tmp_path / "out")] == [("ok", 1.0)]


class Another(Silence):
    """Another driver starts and ends, and an image is added, when this one has found no run yet."""

    def __init__(self, job: Job, image: Path) -> None:
        self.job, self.image = job, image

    def phase(self, what: str) -> None:
        if what == "listing the images":
            annotate(self.job)
            shutil.copy(self.image, self.image.with_name("later.png"))


def test_of_two_drivers_that_start_together_the_second_goes_on_with_the_plan_of_the_first(tmp_path: Path) -> None:
    drivers.write_images(tmp_path / "in", 2)
    job = drivers.job(tmp_path / "in", tmp_path / "out", part_rows=2)
    summary = annotate(job, Another(job, tmp_path / "in" / "0000.png"))
    assert (summary.images, summary.parsed) == (2, 0)
    assert [row["image_id"] for row in rows(tmp_path / "out")] == ["0000.png", "0001.png"]
    assert verify(str(tmp_path / "out")).complete


def test_the_parser_is_a_function_for_other_pipelines(weights: Path, expected: np.ndarray) -> None:
    import ray.data

    table = (
        ray.data.read_images(str(PORTRAITS), include_paths=True, file_extensions=["jpg"])
        .map_batches(
            FaceParser,
            fn_constructor_kwargs={"checkpoint": SMALL, "weights": str(weights)},
            batch_size=2,
            compute=ray.data.ActorPoolStrategy(size=1),
        )
        .drop_columns(["image"])
        .take_all()
    )
    found = sorted(table, key=lambda row: row["path"])
    assert [Path(row["path"]) for row in found] == sorted(PORTRAITS.glob("*.jpg"))
    for row, mask in zip(found, expected, strict=True):
        assert np.array_equal(row["mask"], mask)
        assert row["px_hair"] == (mask == CLASSES.index("hair")).sum()
        assert row["frac_hair"] == np.float32(row["px_hair"] / mask.size)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["swinb_lapa_224", "swinb_helen_512"])
def test_a_manifest_brings_the_landmarks_that_lapa_and_helen_need(name: str, tmp_path: Path) -> None:
    notes = json.loads((filled.REFERENCE / "images" / "annotations.json").read_text())["pictures"]
    points = {
        "swinb_lapa_224": lambda note: np.array(note["lapa_landmarks_106"]),
        "swinb_helen_512": lambda note: np.array(note["helen_landmarks_68_doubled"]) / 2,
    }[name]
    folder = filled.REFERENCE / "images"
    given = [
        {"uri": str(folder / f"{key}.png"), "image_id": key, "landmarks": points(note).ravel().tolist()}
        for key, note in notes.items()
    ]
    given += [
        {"uri": given[0]["uri"], "image_id": "none", "landmarks": None},
        {"uri": given[0]["uri"], "image_id": "wrong", "landmarks": [0.0] * len(given[0]["landmarks"])},
    ]
    pq.write_table(pa.Table.from_pylist(given), tmp_path / "manifest.parquet")
    weights = filled.published_file(name, tmp_path)
    out = tmp_path / "out"
    job = Job(str(tmp_path / "manifest.parquet"), str(out), checkpoint=name, weights=str(weights), actors=(1, 1))
    summary = annotate(job)
    assert (summary.status, summary.errors) == ({"error": 2, "ok": 3}, {"bad_landmarks": 1, "no_landmarks": 1})

    golden = np.load(filled.REFERENCE / "golden" / f"{name}.npz")
    images = json.loads(str(golden["meta"]))["pictures"]
    found = {row["image_id"]: row["mask"] for row in rows(out, "masks")}
    for key, mask in zip(images, golden["mask"], strict=True):
        assert (masks.decode(found[key]["bytes"]) == mask).mean() > 0.999
    assert found["none"] is None
    assert found["wrong"] is None


ON_A_GPU = """
import sys
import ray
from segface_batch import annotate
from segface_batch.output import run as runs
from segface_batch.pipeline.dataset import units
from segface_batch.pipeline.work import Work
from tests import drivers
ray.init(num_cpus=3, num_gpus=1, include_dashboard=False)
job = drivers.job(*sys.argv[1:])
print(annotate(job).status)
run = runs.read(job.output)
first = runs.read_plan(job.output, run).parts[0]
print(units(job, None, [Work(first, 0, "")]))
"""


def test_where_ray_has_a_gpu_tasks_fetch_for_one_actor_on_it(tmp_path: Path) -> None:
    """A stand-in of the network, as Ray takes our word for the GPU."""
    drivers.write_images(tmp_path / "in")
    command = [sys.executable, "-c", ON_A_GPU, str(tmp_path / "in"), str(tmp_path / "on_gpu")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.startswith("{'ok': 60}\n"), done.stderr
    assert "MapBatches(fetched)" in done.stdout
    annotate(drivers.job(tmp_path / "in", tmp_path / "on_cpu"))
    assert rows(tmp_path / "on_gpu") == rows(tmp_path / "on_cpu")
    (events,) = (tmp_path / "on_gpu" / "_segface" / "events").iterdir()
    first = json.loads(events.read_text().splitlines()[0])
    assert (first["actors"], first["num_gpus"]) == ([1, 1], 1.0)
