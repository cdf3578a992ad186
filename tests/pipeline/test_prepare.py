"""What a job becomes before workers get it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segface_batch import Job
from segface_batch.pipeline import prepare


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
