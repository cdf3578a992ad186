"""What a resume must repeat, and what several drivers at once agree on."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from segface_batch import catalog
from segface_batch.inputs.image import SourceImage
from segface_batch.job import DETECTION, Job
from segface_batch.output import plan as plans, run as runs, schema
from tests.stand_in import Quick

INPUT, OUTPUT, SHA256 = "s3://bucket/in", "s3://bucket/out", "0" * 64


class Own(Quick):
    """Called like the default checkpoint."""

    checkpoint = catalog.find(catalog.DEFAULT_CHECKPOINT)


#: Another value of every setting.
OTHER: dict[str, Any] = {
    "input": "s3://bucket/more", "output": "s3://bucket/out2", "checkpoint": "swinb_celeba_512",
    "weights": "s3://bucket/w.pt", "weights_sha256": "1" * 64, "revision": "main",
    "network": "tests.output.test_run:Own", "class_table": "lapa", "confidence": False, "confidence_map": True,
    "device": "cpu", "engine": "torch", "precision": "bf16",
    "compile": True,
    "faces": "detect", "mask_space": "image", "detector": "yunet", "min_face": 41, "min_score": 0.96, "max_faces": 1,
    "decode": "near", "max_pixels": 1000, "columns": ("day",), "image_column": "photo", "part_rows": 7,
    "actors": (1, 2), "threads": 3, "num_gpus": 0.0, "batch_size": 5, "new": True, "retry_errors": True,
    "takeover": True, "max_errors": 0, "allow_unreadable": True, "storage_options": '{"anon": true}',
    "s3_client": "obstore",
}  # fmt: skip

#: Settings that change no row and no place of one; a new setting is none until it is named here.
FREE = {
    "output", "weights", "revision", "device", "actors", "threads", "num_gpus", "batch_size", "new", "retry_errors",
    "takeover", "max_errors", "allow_unreadable", "storage_options", "s3_client",
}  # fmt: skip


def run_of(job: Job, sha256: str | None = SHA256) -> dict[str, Any]:
    described = schema.describe(job.model.dataset)
    return {**described, "settings": runs.recorded_settings(job, sha256)}


def why_refused(first: Job, job: Job, sha256: str = SHA256) -> str | None:
    """What a run that began with `first` says to going on with `job`."""
    try:
        runs.check("out", run_of(first), job, sha256)
    except ValueError as error:
        return str(error)
    return None


def test_a_resume_must_repeat_every_setting_that_changes_rows_or_their_places() -> None:
    refused, expected = {}, {}
    for each in dataclasses.fields(Job):
        about: dict[str, Any] = {"input": INPUT, "output": OUTPUT}
        about |= {"faces": "detect"} if each.metadata.get("group") == DETECTION else {}
        about |= {"class_table": "helen"} if each.name == "class_table" else {}  # compared class by class
        first, value = Job(**about), OTHER[each.name]
        sha256 = value if each.name == "weights_sha256" else SHA256  # found in the file; the option is compared before
        refused[each.name] = why_refused(first, Job(**about | {each.name: value}), sha256)
        name, before = each.name, getattr(first, each.name)
        if name == "input":
            name, before, value = "inputs", [INPUT], [value]
        before = {"weights_sha256": SHA256, "columns": []}.get(name, before)
        value = list(value) if isinstance(value, tuple) else value
        if name == "class_table":
            expected[name] = "'out' was made with another class table of labels; name another output folder"
            continue
        expected[each.name] = None if each.name in FREE else (
            f"'out' was made with {name} {before}, not {value}; repeat that setting to resume, or name another output "
            "folder"
        )  # fmt: skip
    assert refused == expected


def test_a_class_table_that_has_changed_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    table.write_text('["background", "skin"]')
    job = Job(INPUT, OUTPUT, class_table=str(table))
    first = run_of(job, None)
    runs.check("out", first, job, None)
    table.write_text('["background", "hair"]')
    with pytest.raises(
        ValueError, match=r"\A'out' was made with another class table of labels; name another output fol"
    ):
        runs.check("out", first, Job(INPUT, OUTPUT, class_table=str(table)), None)


@pytest.mark.parametrize("version", [schema.SCHEMA_VERSION - 1, schema.SCHEMA_VERSION + 1])
def test_an_output_of_other_columns_is_not_gone_on_with(version: int) -> None:
    job = Job(INPUT, OUTPUT)
    run = run_of(job) | {"schema_version": version, "versions": {"segface-batch": "9.9"}}
    with pytest.raises(ValueError, match=r"'out' was made by segface-batch 9\.9 with other columns; go on with that"):
        runs.check("out", run, job, SHA256)


def test_a_network_that_is_another_checkpoint_now_is_refused() -> None:
    job = Job(INPUT, OUTPUT, network="tests.stand_in:Quick")
    run = run_of(job)
    assert run["settings"]["checkpoint"] == "demo-synthetic"
    run["settings"]["checkpoint"] = "mine"
    with pytest.raises(ValueError, match="'out' was made with checkpoint mine, not demo-synthetic; repeat"):
        runs.check("out", run, job, SHA256)


def test_of_two_drivers_that_start_together_the_second_goes_on_with_the_plan_of_the_first(tmp_path: Path) -> None:
    out, job = str(tmp_path), Job(INPUT, OUTPUT)
    first = runs.start(out, job, SHA256, "plan-a.json", pa.schema([]))
    assert first["plan"] == "plan-a.json"
    assert [*first["versions"]] == [name for name in runs.PACKAGES if name != "openvino"]
    assert runs.start(out, job, SHA256, "plan-b.json", pa.schema([])) == first == runs.read(out)
    with pytest.raises(ValueError, match="was made with precision fp32, not bf16; repeat that setting"):
        runs.start(out, dataclasses.replace(job, precision="bf16"), SHA256, "plan-b.json", pa.schema([]))
    assert runs.read(out) == first


def test_the_version_of_openvino_is_recorded_where_it_takes_part(tmp_path: Path) -> None:
    run = runs.start(str(tmp_path), Job(INPUT, OUTPUT, engine="openvino"), SHA256, "plan-a.json", pa.schema([]))
    assert [*run["versions"]] == [*runs.PACKAGES]


def test_inputs_are_recorded_by_their_whole_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder / "in").mkdir(parents=True)
        (tmp_path / folder / "in" / "0.png").touch()
    monkeypatch.chdir(tmp_path / "a")
    run = run_of(Job("in", "out"))
    assert run["settings"]["inputs"] == [f"{tmp_path}/a/in"]
    runs.check("out", run, Job(f"{tmp_path}/a/in", "out"), SHA256)
    monkeypatch.chdir(tmp_path / "b")
    with pytest.raises(ValueError, match="was made with inputs"):
        runs.check("out", run, Job("in", "out"), SHA256)


def test_where_no_image_failed_no_retry_begins(tmp_path: Path) -> None:
    runs.begin_retry(str(tmp_path), {})
    assert runs.find_retry(str(tmp_path)) is None
    runs.begin_retry(str(tmp_path), {0: {3: [1, 2]}})
    assert runs.find_retry(str(tmp_path)) == runs.Retry("retry-0001", {0: {3: [1, 2]}})


def test_each_addition_is_one_more(tmp_path: Path) -> None:
    out = str(tmp_path)
    names = [
        plans.write(
            runs.plan_folder(out), [SourceImage(name, name)], Counter(), 8, first_unit=number, first_part=number
        )
        for number, name in enumerate("abc")
    ]
    for name in names[1:]:
        runs.add(out, name)
    assert [part.index for part in runs.read_plan(out, {"plan": names[0]}).parts] == [0, 1, 2]
