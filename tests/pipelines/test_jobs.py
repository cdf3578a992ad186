"""The jobs of pipelines/, run as they stand; only the checkpoint is a small one where theirs would be downloaded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines import annotate_folder, annotate_photographs, annotate_s3, own_network, own_pipeline
from segface_batch import storage
from segface_batch.images import masks
from tests import drivers
from tests.conftest import PORTRAITS
from tests.s3_server import S3Server

ROOT = Path(__file__).parents[2]

SMALL = "demo-synthetic"


@pytest.mark.usefixtures("ray_session")
def test_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotate_folder.main(str(PORTRAITS), str(tmp_path / "out"), SMALL)
    assert capsys.readouterr().out.startswith("2 images: 2 with faces; 2 faces\n")


@pytest.mark.usefixtures("ray_session")
def test_photographs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    annotate_photographs.main(str(PORTRAITS), str(out), SMALL)
    assert capsys.readouterr().out.startswith("2 images: 2 with faces; 2 faces\n")
    stats, found = (pq.read_table(out / name).to_pylist() for name in ("stats", "masks"))
    assert all(row["score"] > 0.9 for row in stats)
    pixels = [masks.decode(row["mask"]["bytes"]).size for row in found]
    assert [row["mask_pixels"] <= size for row, size in zip(stats, pixels, strict=True)] == [True, True]


@pytest.mark.usefixtures("ray_session")
def test_s3(s3_server: S3Server, s3_bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client = s3_server.client()
    for path in PORTRAITS.glob("*.jpg"):
        client.put_object(Bucket=s3_bucket, Key=f"in/{path.name}", Body=path.read_bytes())
    options = drivers.storage_options(s3_server.endpoint, tmp_path / "storage.json")
    try:
        annotate_s3.main(f"s3://{s3_bucket}/in", f"s3://{s3_bucket}/out", str(options), SMALL)
        assert capsys.readouterr().out.startswith("2 images: 2 with faces; 2 faces\n")
        assert sorted(drivers.parts(f"s3://{s3_bucket}/out")) == [
            "masks/part-00000.parquet",
            "shapes/part-00000.parquet",
            "stats/part-00000.parquet",
        ]
    finally:
        storage.configure(None)


@pytest.mark.usefixtures("ray_session")
def test_a_pipeline_of_ones_own(weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    faces = [shutil.copy(path, tmp_path) for path in PORTRAITS.glob("*.jpg")]
    (tmp_path / "broken.png").write_bytes(b"no image")
    own_pipeline.main(str(tmp_path), str(weights))
    *lines, broken = capsys.readouterr().out.splitlines()
    shares, paths = zip(*(line.split("  ") for line in lines), strict=True)
    assert sorted(paths) == sorted(map(str, faces))
    assert list(shares) == sorted(shares)
    assert broken == f"unreadable  {tmp_path / 'broken.png'}"


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    """With the two commands of its docstring."""
    out = tmp_path / "out"
    line, question = (line.strip() for line in (own_network.__doc__ or "").splitlines() if "segface-batch " in line)
    assert line == (
        "PYTHONPATH=. segface-batch annotate segface_batch/assets/faces out --network pipelines.own_network:SkinTone"
    )
    command = [sys.executable, "-m", "segface_batch.cli"]
    own = ["--network", "pipelines.own_network:SkinTone"]
    run([*command, "annotate", str(PORTRAITS), str(out), *own])

    table = pq.read_table(out / "stats")
    names = [column for column in table.column_names if column.startswith(("px_", "frac_"))]
    words = ["background", "dark", "bright", "skin"]
    assert names == [f"px_{word}" for word in words] + [f"frac_{word}" for word in words]
    (part,) = (out / "stats").iterdir()
    about = json.loads(pq.read_metadata(part).metadata[b"segface_batch"])
    assert [entry["name"] for entry in about["classes"]] == words
    skin = {"id": 3, "name": "skin", "meaning": "coloured like skin", "color": [255, 214, 170], "common": "skin"}
    assert about["classes"][3] == skin
    for row, mask in zip(table.to_pylist(), pq.read_table(out / "masks").to_pylist(), strict=True):
        labels = masks.decode(mask["mask"]["bytes"])
        assert labels.shape == (256, 256)
        assert [row[f"px_{word}"] for word in words] == np.bincount(labels.ravel(), minlength=4).tolist()
        assert row["px_skin"] == row["face_px"] > 0
        assert row["skin_light"] > 0
        assert (row["confidence"], row["conf_skin"], row["eye_dist"]) == (None, None, None)

    sql = question.split('"')[1]
    told = run([*command, "query", str(out), sql])
    assert told.splitlines()[0].split() == ["image_id", "frac_skin", "px_dark"]
    assert len(told.splitlines()) > 2


def run(command: list[str]) -> str:
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
