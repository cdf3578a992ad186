"""Faces of an output with all that belongs to them; outputs in object stores are opened like those on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from segface_batch import storage
from segface_batch.catalog import LAPA
from segface_batch.curate.query import query
from segface_batch.output.reader import open_output
from segface_batch.storage import retry
from tests import drivers
from tests.curate import small_output
from tests.fault_proxy import RunningProxy
from tests.output import protocol
from tests.s3_server import REGION, S3Server, secret_of

SQL = "select * from stats join masks using (unit, seq, face) order by unit, seq, face"


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return small_output.small_output(tmp_path)


def test_faces_come_in_plan_order_with_mask_image_and_geometry(local: Path) -> None:
    output = open_output(str(local))
    assert output.classes == LAPA.classes
    assert output.settings == {"max_pixels": 1_000_000, "faces": "whole"}
    faces = list(output.faces())
    assert [face.key for face in faces] == [(0, 0, 0), (1, 0, 0), (1, 0, 1)]
    assert [face.row["image_id"] for face in faces] == ["a/one.png", "two.png", "two.png"]
    # Not in the order in which they come.
    for face, labels in list(zip(faces, (small_output.FACE, small_output.FACE, small_output.SECOND), strict=True))[
        ::-1
    ]:
        assert np.array_equal(face.mask, labels)
        assert face.png.startswith(b"\x89PNG")
    whole = pq.read_table(local / "stats")
    assert faces[2].row == next(row for row in whole.to_pylist() if row["face"] == 1)
    assert faces[2].size == faces[2].image().size == (64, 32)
    assert faces[2].transform.tolist() == [[4, 0, 32], [0, 1, 8]]
    assert faces[0].image().getpixel((0, 0)) == (203, 3, 3)


def test_faces_are_chosen_by_a_condition_and_bring_the_columns_that_are_asked_for(local: Path) -> None:
    output = open_output(str(local))
    (face,) = output.faces(ds.field("score") < 0.85, ["px_hair"])
    assert face.row == {
        "image_id": "two.png", "uri": str(local.parent / "faces" / "two.png"), "unit": 1, "seq": 0, "face": 1,
        "width": 64, "height": 32, "transform": [4, 0, 32, 0, 1, 8], "px_hair": 0,
    }  # fmt: skip
    assert np.array_equal(face.mask, small_output.SECOND)
    assert list(output.faces(ds.field("status") == "error")) == []


@pytest.mark.parametrize("kept", [lambda number: True, lambda number: number % 7 == 3], ids=["all", "some"])
def test_masks_are_read_by_row_group_each_once(
    kept: Callable[[int], bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three parts, of which the last is not full, in row groups that no unit and no batch ends with."""
    labels = [np.full((2, 2), number % len(LAPA.classes), np.uint8) for number in range(50)]
    rows = [
        small_output.row(f"{number}.png", "", number % 7, labels[number], unit=number // 7, px_hair=int(kept(number)))
        for number in range(50)
    ]
    for part in range(3):
        small_output.write_part(tmp_path, part, rows[20 * part :][:20])
        masks = tmp_path / "masks" / f"part-{part:05d}.parquet"
        pq.write_table(pq.read_table(masks), masks, row_group_size=8)
    read: list[tuple[object, int]] = []
    read_row_group = pq.ParquetFile.read_row_group

    def counted(self: pq.ParquetFile, i: int, columns: list[str]) -> pa.Table:
        if columns == ["mask"]:
            read.append((id(self), i))
        return read_row_group(self, i, columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    faces = open_output(str(tmp_path)).faces(ds.field("px_hair") == 1, (), batch_rows=6)
    found = {face.row["image_id"]: face.mask[0, 0] for face in faces}
    assert found == {f"{number}.png": number % len(LAPA.classes) for number in range(50) if kept(number)}
    assert len(read) == (8 if kept(0) else 7)  # 3 + 3 + 2, of which one of the 7 has none that is kept


def test_a_mask_that_is_not_beside_its_statistics_is_damage(local: Path) -> None:
    masks = local / "masks" / "part-00001.parquet"
    pq.write_table(pq.read_table(masks)[:1], masks)
    *_, face = open_output(str(local)).faces()
    with pytest.raises(ValueError, match=r"part-00001\.parquet' lacks a row that stats has; 'segface-batch verify'"):
        _ = face.mask


def copy(local: Path, url: str) -> None:
    for path in local.rglob("*"):
        if path.is_file():
            storage.put(f"{url}/{path.relative_to(local)}", path.read_bytes())


def options(proxy: RunningProxy, folder: Path, **changes: Any) -> None:
    given = {
        "endpoint_url": proxy.url,
        "key": "ci-admin",
        "secret": secret_of("ci-admin"),
        "client_kwargs": {"region_name": REGION},
    }
    (folder / "options.json").write_text(json.dumps(given | changes))
    storage.configure(str(folder / "options.json"))


@pytest.fixture
def remote(local: Path, s3_bucket: str, s3_proxy: RunningProxy, tmp_path: Path) -> Iterator[str]:
    options(s3_proxy, tmp_path)
    url = f"s3://{s3_bucket}/results of/run"
    copy(local, url)
    yield url
    storage.configure(None)


def test_an_output_on_s3_gives_the_rows_of_its_local_copy(local: Path, remote: str) -> None:
    assert isinstance(open_output(remote).stats.filesystem, pafs.S3FileSystem)
    rows = query(str(local), SQL).read_all()
    assert rows.num_rows == 5
    assert query(remote, SQL).read_all() == rows
    assert query(remote + "/", "select count(*) as n from stats where status = 'ok'").read_all().to_pylist() == [
        {"n": 3}
    ]
    local_masks, remote_masks = ([face.png for face in open_output(str(out)).faces()] for out in (local, remote))
    assert remote_masks == local_masks


def test_other_urls_go_through_fsspec(local: Path) -> None:
    copy(local, "memory://bucket/run")
    assert query("memory://bucket/run", SQL).read_all() == query(str(local), SQL).read_all()


def test_the_environment_says_who_asks(remote: str, s3_server: S3Server) -> None:
    script = (
        "import sys; from segface_batch.curate.query import query; print(query(*sys.argv[1:]).read_all().to_pylist())"
    )
    command = [sys.executable, "-c", script, remote, "select count(*) as n from stats"]
    environment = {**os.environ, **s3_server.environment()}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("[{'n': 5}]\n", "", 0)


def test_masks_that_are_missing_are_named(remote: str) -> None:
    storage.remove([f"{remote}/masks/part-00001.parquet"])
    with pytest.raises(FileNotFoundError, match=rf"\A'{remote}/masks/part-00001.parquet' is missing though stats has"):
        open_output(remote)
    with pytest.raises(FileNotFoundError, match=rf"\A'{remote}2/stats' has no Parquet part yet"):
        open_output(f"{remote}2")


def test_a_part_that_goes_away_is_an_error_and_no_hang(remote: str) -> None:
    output = open_output(remote)
    storage.remove([f"{remote}/stats/part-00001.parquet"])
    with duckdb.connect() as connection:
        connection.register("stats", output.stats)
        with pytest.raises(Exception, match=r"part-00001\.parquet"):
            connection.sql("select sum(px_hair) from stats").fetchall()


def test_who_may_read_the_two_tables_alone_reads_them(remote: str, s3_proxy: RunningProxy, tmp_path: Path) -> None:
    drivers.write_images(tmp_path / "in", 3)
    protocol.main(str(tmp_path / "in"), str(tmp_path / "planned"))
    options(s3_proxy, tmp_path)
    copy(tmp_path / "planned", f"{remote}2")
    assert open_output(f"{remote}2").originals.plan is not None
    s3_proxy.set_faults([{"fault": "denied", "match": "_segface"}])
    output = open_output(f"{remote}2")
    assert output.originals.plan is None
    assert [face.row["image_id"] for face in output.faces()] == ["0000.png", "0001.png", "0002.png"]


def test_a_forbidden_bucket_is_said_so(remote: str, s3_proxy: RunningProxy, tmp_path: Path) -> None:
    options(s3_proxy, tmp_path, key="ci-reader", secret=secret_of("ci-reader"))
    with pytest.raises(PermissionError, match=rf"\A.*AccessDenied: '{remote}/stats'\Z"):
        query(remote, SQL)
    options(s3_proxy, tmp_path, secret="wrong")
    with pytest.raises(storage.StorageUnavailable, match=r"\A.*SignatureDoesNotMatch: check the credentials.*\Z"):
        query(remote, SQL)


@pytest.mark.parametrize("match", ["list-type", ".parquet"])
def test_a_store_that_does_not_answer_is_an_error_and_no_hang(remote: str, s3_proxy: RunningProxy, match: str) -> None:
    usual, retry.SECONDS = retry.SECONDS, 1.0
    s3_proxy.set_faults([{"fault": "slowdown", "match": match}])
    begin = time.monotonic()
    try:
        with pytest.raises(OSError, match=r"\A.+\Z"):
            query(remote, SQL)
    finally:
        retry.SECONDS = usual
    assert time.monotonic() - begin < 15
