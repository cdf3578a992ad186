"""Inputs on a real S3 server, through both clients: what is read, and by how many requests."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segface_batch import storage
from segface_batch.storage import options, retry
from tests.fault_proxy import RunningProxy
from tests.inputs.archives import IMAGE, tar_file
from tests.inputs.test_sources import listed
from tests.pipeline.test_fetch import Planned
from tests.s3_server import REGION, S3Server, secret_of


@dataclass
class Bucket:
    client: str
    name: str
    proxy: RunningProxy
    boto: Any  # past the proxy, as administrator
    local: Path

    def keep(self, key: str, content: bytes) -> None:
        self.boto.put_object(Bucket=self.name, Key=key, Body=content)

    def options(self, access_key: str) -> str:
        """A file of options for one of the server's identities."""
        given = {"key": access_key, "secret": secret_of(access_key), "endpoint_url": self.proxy.url}
        file = self.local / f"{access_key}.json"
        file.write_text(json.dumps(given | {"client_kwargs": {"region_name": REGION}}))
        return str(file)

    def requests(self) -> dict[str, int]:
        """How many requests of each method there were since the last call."""
        counts = self.proxy.stats()["counts"]
        self.proxy.set_faults([])
        return {name: count for name, count in counts.items() if not name.startswith("fault:")}


@pytest.fixture(params=options.S3_CLIENTS)
def bucket(
    request: pytest.FixtureRequest, s3_server: S3Server, s3_proxy: RunningProxy, tmp_path: Path
) -> Iterator[Bucket]:
    found = Bucket(request.param, s3_server.new_bucket(), s3_proxy, s3_server.client(), tmp_path)
    storage.configure(found.options("ci-admin"), found.client)
    s3_proxy.set_faults([])
    yield found
    storage.configure(None)


def test_a_prefix_is_listed_and_each_image_is_one_get(bucket: Bucket, tmp_path: Path) -> None:
    for name in ("in/b/1.jpg", "in/a#?b.PNG", "in/ü/c d.jpg", "in/note.md", "in/.x/1.jpg", "in2/d.jpg"):
        bucket.keep(name, name.encode())
    bucket.requests()
    planned = Planned(tmp_path, f"s3://{bucket.name}/in/")
    assert bucket.requests() == {"GET": 1}
    assert planned.plan.skipped == {".md files": 1, "hidden": 1}
    names = ["a#?b.PNG", "b/1.jpg", "ü/c d.jpg"]
    fetched = planned.answers()
    assert fetched == [(name, f"in/{name}".encode(), None) for name in names]
    assert bucket.requests() == {"GET": 3}


def test_a_unit_of_a_tar_file_is_one_get(bucket: Bucket, tmp_path: Path) -> None:
    files = [(f"{number:02d}.jpg", b"%d" % number * 900) for number in range(20)]
    bucket.keep("in/s.tar", tar_file(tmp_path / "s.tar", files).read_bytes())
    bucket.requests()
    planned = Planned(tmp_path, f"s3://{bucket.name}/in")
    assert bucket.requests() == {"GET": 2}  # the listing, and a block with all headers
    assert planned.plan.parts[0].sizes == (8, 8, 4)
    for position in range(3):
        fetched = planned.answers(position)
        assert fetched == [(f"s.tar/{name}", data, None) for name, data in files[8 * position : 8 * position + 8]]
        assert bucket.requests() == {"GET": 1}


def test_rows_of_a_parquet_file_need_its_footer_once_and_their_row_group(bucket: Bucket, tmp_path: Path) -> None:
    images = [{"bytes": b"%d" % number * 300, "path": f"{number}.jpg"} for number in range(600)]
    pq.write_table(pa.table({"image": pa.array(images, IMAGE)}), tmp_path / "f.parquet", row_group_size=300)
    bucket.keep("f.parquet", (tmp_path / "f.parquet").read_bytes())
    bucket.requests()
    planned = Planned(tmp_path, f"s3://{bucket.name}/f.parquet")
    asked = bucket.requests()
    assert asked == {"HEAD": 1, "GET": 4}  # what it is; its footer twice; the paths of two row groups
    assert planned.plan.parts[0].sizes == (256, 44, 256, 44)
    expected = [(image["path"], image["bytes"], None) for image in images]
    for position, (start, end) in enumerate([(0, 256), (256, 300), (300, 556), (556, 600)]):
        fetched = planned.answers(position)
        assert fetched == expected[start:end]
        assert bucket.requests() == {"GET": 2 if position == 0 else 1}


def test_a_forbidden_unit_stops_the_run(bucket: Bucket, tmp_path: Path) -> None:
    prefix = uuid.uuid4().hex[:6]
    for number in range(9):
        bucket.keep(f"{prefix}/{number}.jpg", b"1")
    planned = Planned(tmp_path, f"s3://{bucket.name}/{prefix}")
    storage.configure(bucket.options("ci-reader"), bucket.client)
    assert planned.fatal() == (
        f"all 8 images of unit 0 are forbidden (first: s3://{bucket.name}/{prefix}/0.jpg: AccessDenied); fix the "
        "permissions and run again, or add --allow-unreadable to record them as errors"
    )
    assert planned.answers(1) == [("8.jpg", None, "forbidden")]
    assert [error for _, _, error in planned.answers(allow_unreadable=True)] == ["forbidden"] * 8


def test_a_shard_that_may_not_be_read_is_forbidden_and_not_damaged(bucket: Bucket, tmp_path: Path) -> None:
    bucket.keep("in/a.tar", tar_file(tmp_path / "a.tar", [("1.jpg", b"1")]).read_bytes())
    bucket.keep("in/b.tar", bytes(1024))
    bucket.keep("in/c.parquet", bytes(1024))
    bucket.proxy.set_faults([{"fault": "denied", "match": match} for match in ("/in/b.tar", "/in/c.parquet")])
    images = Planned(tmp_path, f"s3://{bucket.name}/in").unit
    assert [(image.image_id, image.error) for image in [*images(0).images, *images(1).images]] == [
        ("a.tar/1.jpg", None),
        ("b.tar", "forbidden"),
        ("c.parquet", "forbidden"),
    ]
    bucket.proxy.set_faults([])


def test_a_server_that_is_down_costs_a_unit_one_deadline(bucket: Bucket, tmp_path: Path) -> None:
    """64 images by 16 threads: with a deadline for each they would take four."""
    (tmp_path / "m.txt").write_text("".join(f"s3://{bucket.name}/{number}.jpg\n" for number in range(16_384)))
    planned = Planned(tmp_path, tmp_path / "m.txt")
    bucket.proxy.set_faults([{"method": "GET", "fault": "slowdown"}])
    usual, retry.SECONDS = retry.SECONDS, 2.0
    started = time.monotonic()
    try:
        fatal = planned.fatal()
    finally:
        retry.SECONDS = usual
        bucket.proxy.set_faults([])
    assert fatal.startswith(f"all 64 images of unit 0 are unfetchable (first: s3://{bucket.name}/0.jpg: ")
    assert "within 2 s" in fatal
    assert time.monotonic() - started < 5


def test_a_manifest_is_read_by_requests_of_4_mib(bucket: Bucket) -> None:
    names = [f"{number:02000}.jpg" for number in range(2500)]
    bucket.keep("lists/m.txt", "\n".join(names).encode())  # 5 MB
    bucket.requests()
    assert [image.image_id for image in listed(f"s3://{bucket.name}/lists/m.txt")[0]] == names
    assert bucket.requests() == {"HEAD": 1, "GET": 2}


def test_relative_paths_in_a_manifest_start_at_its_prefix(bucket: Bucket, tmp_path: Path) -> None:
    bucket.keep("lists/a/1.jpg", b"12")
    bucket.keep("lists/m.csv", b"uri,who\na/1.jpg,x\nabsent.jpg,y\n")
    planned = Planned(tmp_path, f"s3://{bucket.name}/lists/m.csv", columns=("who",))
    fetched = planned.answers()
    assert fetched == [("a/1.jpg", b"12", None), ("absent.jpg", None, "missing")]
