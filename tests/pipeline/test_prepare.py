"""What a job becomes before workers get it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from segface_batch import Job, catalog
from segface_batch.model import weights
from segface_batch.pipeline import prepare
from segface_batch.progress import Silence
from tests.conftest import PORTRAITS


def test_workers_do_not_get_what_signs_the_inputs() -> None:
    job = Job(("https://host/a.csv?X-Amz-Signature=secret", "s3://bucket/faces"), "out")
    assert prepare.for_workers(job).inputs == ("https://host/a.csv?X-Amz-Signature=REDACTED", "s3://bucket/faces")


def test_workers_find_local_places_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "options.json").write_text("{}")
    (tmp_path / "w.pt").touch()
    (tmp_path / "faces").mkdir()
    job = prepare.located(Job("faces", "out", weights="w.pt", storage_options="options.json"))
    here = str(tmp_path)
    assert (job.output, job.weights, job.storage_options) == (f"{here}/out", f"{here}/w.pt", f"{here}/options.json")


def test_what_is_no_local_place_stays_as_it_is() -> None:
    options = json.dumps({"s3": {"anon": True}})
    job = Job("s3://bucket/faces", "s3://bucket/out", weights="s3://bucket/w.pt", storage_options=options)
    found = prepare.located(job)
    assert (found.output, found.weights, found.storage_options) == (job.output, job.weights, options)


def job(tmp_path: Path, **settings: Any) -> Job:
    return Job(str(PORTRAITS), str(tmp_path / "out"), checkpoint="demo-synthetic", **settings)


def test_weights_with_another_sha256_than_the_jobs_are_refused(tmp_path: Path) -> None:
    file = weights.locate(catalog.find("demo-synthetic"))
    true = weights.sha256(file)
    assert prepare.weights_sha256(job(tmp_path, weights_sha256=true), Silence()) == true
    with pytest.raises(ValueError, match=f"^{file} has sha256 {true}, not {'0' * 64}; get the file again$"):
        prepare.weights_sha256(job(tmp_path, weights_sha256="0" * 64), Silence())


def test_a_file_without_weights_is_refused_before_ray_starts(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_text("<html>404</html>")
    with pytest.raises(ValueError, match=r"w\.pt is neither a published SegFace file"):
        prepare.weights_sha256(job(tmp_path, weights=str(tmp_path / "w.pt")), Silence())


def test_a_detectors_weights_that_cannot_be_had_are_missed_before_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(*_: object) -> Path:
        raise OSError("cannot fetch it")

    monkeypatch.setattr(weights, "from_hub", nowhere)
    prepare.weights_sha256(job(tmp_path, faces="detect"), Silence())
    with pytest.raises(OSError, match="cannot fetch it"):
        prepare.weights_sha256(job(tmp_path, faces="detect", detector="yunet"), Silence())


def test_a_network_of_ones_own_has_weights_only_where_it_is_given_some(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"network": "tests.stand_in:Quick"}
    assert prepare.weights_sha256(Job(str(PORTRAITS), str(tmp_path / "out"), **settings), Silence()) is None
    (tmp_path / "w.bin").write_bytes(b"abc")
    given = Job(str(PORTRAITS), str(tmp_path / "out"), weights=str(tmp_path / "w.bin"), **settings)
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert prepare.weights_sha256(given, Silence()) == abc
