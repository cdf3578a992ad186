"""Removing what no run needs fails no run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from segface_batch import storage
from segface_batch.output import parts, run as runs
from segface_batch.output.verify import ORPHANED, verify
from segface_batch.storage import retry
from tests import drivers
from tests.fault_proxy import RunningProxy
from tests.output import protocol
from tests.s3_server import S3Server


@pytest.fixture
def store(s3_server: S3Server, s3_proxy: RunningProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningProxy]:
    """The store of the environment, behind the proxy."""
    for name, value in (s3_server.environment() | {"AWS_ENDPOINT_URL": s3_proxy.url}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(retry, "SECONDS", 1.0)
    storage.configure("{}")  # forgets the environment before
    storage.configure(None)
    yield s3_proxy
    storage.configure("{}")
    storage.configure(None)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tidying") / "in"
    drivers.write_images(folder, 10)
    return folder


def test_a_store_that_lacks_something_gives_the_same_output(
    store: RunningProxy, source: Path, s3_bucket: str, tmp_path: Path
) -> None:
    protocol.main(str(source), str(tmp_path / "out"))
    for number, rules in enumerate([
        [{"fault": "no_md5", "method": "POST", "match": "delete"}],
        [{"fault": "unknown", "method": "PUT", "header": "If-None-Match"}],
    ]):  # fmt: skip
        out = f"s3://{s3_bucket}/{number}"
        store.set_faults(rules)
        protocol.main(str(source), out)
        assert store.stats()["counts"][f"fault:{rules[0]['fault']}"] == 1
        assert drivers.parts(out) == drivers.parts(tmp_path / "out")
        assert (verify(out).findings, storage.list_names(f"{out}/_segface/staging", "")) == ({}, [])


@pytest.mark.parametrize("fault", ["denied", "slowdown"])
def test_where_nothing_can_be_removed_the_run_ends_well_and_says_what_stays(
    fault: str, store: RunningProxy, source: Path, s3_bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = f"s3://{s3_bucket}/out"
    store.set_faults([{"fault": fault, "method": "POST", "match": "delete"}])
    protocol.main(str(source), out)
    staging = f"{out}/_segface/staging"
    assert [line.partition(" (")[0] for line in capsys.readouterr().err.splitlines()] == [
        f"{place} stays; no run needs it, remove it yourself" for place in (f"{staging}/part-00000", staging)
    ]
    assert list(verify(out).findings) == [ORPHANED]
    assert len(storage.list_names(staging, ".arrow")) == 2
    manifest = storage.read(f"{out}/_segface/manifest.json")
    # Nothing is left to do; what stays, stays.
    store.set_faults([])
    run = runs.read(out)
    assert run is not None
    plan = runs.read_plan(out, run)
    assert parts.find_unfinished(out, plan) == {}
    parts.finish(out, plan)
    assert store.stats()["counts"].get("POST", 0) == 0
    assert storage.read(f"{out}/_segface/manifest.json") == manifest
