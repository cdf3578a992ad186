"""What a run leaves in its event log, also when it stands still or stops."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest

from segface_batch.job import Job
from segface_batch.output import events, run as runs

SECRET = "hunter2"


def job(**settings: Any) -> Job:
    return Job(f"https://host/list.csv?X-Amz-Signature={SECRET}", f"https://host/out?sig={SECRET}", **settings)


def written(out: Path) -> list[list[dict[str, Any]]]:
    """The lines of each object, in the order of names."""
    places = sorted((out / "_segface" / "events").glob("*.jsonl"))
    return [[json.loads(line) for line in place.read_text().splitlines()] for place in places]


def test_a_run_that_stands_still_is_seen_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "INTERVAL", 0.1)
    with events.record(str(tmp_path), job(), units=2) as run:
        run.add_unit(64, 3, {"fetch": 0.5, "network": 2.0}, 64, 100)
        run.add_unit(6, 0, {"network": 1.0}, 70, 100)
        time.sleep(0.7)
        seen = written(tmp_path)[0]
    assert seen[0]["event"] == "start"
    assert seen[0]["units"] == 2
    first, last = seen[1], seen[-1]
    assert {name: first[name] for name in ("event", "units", "images", "errors", "done", "total", "seconds")} == {
        "event": "progress", "units": 2, "images": 70, "errors": 3, "done": 70, "total": 100,
        "seconds": {"fetch": 0.5, "network": 3.0},
    }  # fmt: skip
    assert last["last_unit_seconds_ago"] > first["last_unit_seconds_ago"]
    assert last["images_per_second"] < first["images_per_second"]
    assert written(tmp_path)[0][-1]["event"] == "end"


def test_an_object_holds_so_many_lines_and_another_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "INTERVAL", 0.05)
    monkeypatch.setattr(events, "MOST_LINES", 4)
    with events.record(str(tmp_path), job()):
        time.sleep(0.6)
    objects = written(tmp_path)
    assert len(objects) > 1
    assert [len(lines) for lines in objects[:-1]] == [4] * (len(objects) - 1)
    lines = [line["event"] for lines in objects for line in lines]
    assert lines == ["start", *["progress"] * (len(lines) - 2), "end"]


def test_why_a_run_stopped_is_recorded_without_secrets(tmp_path: Path) -> None:
    options = f'{{"client_kwargs": {{"headers": {{"X-Api": "{SECRET}"}}}}}}'
    given = job(weights=f"https://host/w.pt?sig={SECRET}", storage_options=options)
    with pytest.raises(RuntimeError), events.record(str(tmp_path), given):
        raise RuntimeError(f"no answer from https://user:{SECRET}@host/w.pt")
    ((start, stop),) = written(tmp_path)
    shown = dataclasses.asdict(given) | {
        "input": ["https://host/list.csv?X-Amz-Signature=REDACTED"], "output": "https://host/out?sig=REDACTED",
        "weights": "https://host/w.pt?sig=REDACTED", "storage_options": "given on the command line",
    }  # fmt: skip
    assert start["settings"] == json.loads(json.dumps(shown))
    assert (stop["event"], stop["reason"]) == ("stop", "RuntimeError: no answer from https://host/w.pt")
    assert SECRET not in json.dumps([start, stop, runs.recorded_settings(job(), "0" * 64)])


def test_ctrl_c_is_no_failure(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), events.record(str(tmp_path), job()):
        raise KeyboardInterrupt
    assert written(tmp_path)[0][-1]["reason"] == "interrupted"


def test_a_log_that_cannot_be_written_stops_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "INTERVAL", 0.05)
    (tmp_path / "out").write_bytes(b"a file")
    with events.record(str(tmp_path / "out"), job()) as run:
        time.sleep(0.2)
    assert [json.loads(line)["event"] for line in run.lines][:: len(run.lines) - 1] == ["start", "end"]


def test_a_file_of_storage_options_is_recorded_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "options.json").write_text("{}")
    with events.record(str(tmp_path), job(storage_options=str(tmp_path / "options.json"))):
        pass
    assert written(tmp_path)[0][0]["settings"]["storage_options"] == f"{tmp_path}/options.json"


def test_each_unit_says_that_a_run_goes_on(tmp_path: Path) -> None:
    run = events.Events(str(tmp_path))
    time.sleep(0.2)
    assert run.progress()["last_unit_seconds_ago"] >= 0.2
    run.add_unit(8, 0, {}, 8, 100)
    assert run.progress()["last_unit_seconds_ago"] < 0.2
