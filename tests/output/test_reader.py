"""Outputs in object stores are opened and asked like those on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.fs as pafs
import pytest

from segface_batch import storage
from segface_batch.curate.query import query
from segface_batch.output.reader import open_tables
from segface_batch.storage import retry
from tests.curate import small_output
from tests.fault_proxy import RunningProxy
from tests.s3_server import REGION, S3Server, secret_of

SQL = "select * from stats join masks using (unit, seq, face) order by unit, seq, face"


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return small_output.small_output(tmp_path)


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
    assert isinstance(open_tables(remote).stats.filesystem, pafs.S3FileSystem)
    rows = query(str(local), SQL).read_all()
    assert rows.num_rows == 5
    assert query(remote, SQL).read_all() == rows
    assert query(remote + "/", "select count(*) as n from stats where status = 'ok'").read_all().to_pylist() == [
        {"n": 3}
    ]


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
        open_tables(remote)
    with pytest.raises(FileNotFoundError, match=rf"\A'{remote}2/stats' has no Parquet part yet"):
        open_tables(f"{remote}2")


def test_a_part_that_goes_away_is_an_error_and_no_hang(remote: str) -> None:
    tables = open_tables(remote)
    storage.remove([f"{remote}/stats/part-00001.parquet"])
    with duckdb.connect() as connection:
        connection.register("stats", tables.stats)
        with pytest.raises(Exception, match=r"part-00001\.parquet"):
            connection.sql("select sum(px_hair) from stats").fetchall()


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
