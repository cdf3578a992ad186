"""A process that dies before, in or after any write leaves what the next one finishes, to the same bytes."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from segface_batch.output.verify import verify
from tests import drivers
from tests.output import protocol

#: Every object of an output, by a word in its place.
OBJECTS = (
    "plan/part-00000",
    "plan/part-00002",
    "plan/plan-",
    "run.json",
    "unit-00000000.arrow",
    "unit-00000004.arrow",
    "masks/part-00000",
    "shapes/part-00000",
    "parts/part-00000",
    "stats/part-00000",
    "stats/part-00002",
    "manifest.json",
)
MOMENTS = ("before", "written", "after")

FORKS = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crash") / "in"
    drivers.write_images(folder)
    (folder / "0007.png").write_bytes(bytes((folder / "0008.png").stat().st_size))
    return folder


@pytest.fixture(scope="module", autouse=True)
def _processes() -> None:
    """New processes are forked from one that has all modules."""
    FORKS.set_forkserver_preload(["tests.output.protocol", "pandas"])  # which pyarrow imports when it sees it


def run(source: Path, out: Path, *words: str, failpoint: str = "") -> int | None:
    process = FORKS.Process(target=protocol.with_failpoint, args=(failpoint, str(source), str(out), *words))
    process.start()
    process.join(60)
    return process.exitcode


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    assert run(source, out) == 0
    assert verify(str(out)).complete
    return out


#: Those of every run of the tests; the others are of the slow ones.
USUAL = ("run.json", "unit-00000004.arrow", "masks/part-00000", "stats/part-00000", "0001.done")


def places(*words: str) -> list[Any]:
    return [word if word in USUAL else pytest.param(word, marks=pytest.mark.slow) for word in words]


@pytest.mark.parametrize("place", places(*OBJECTS, "removing:part-00001"))
def test_a_death_at_a_write_changes_nothing_in_the_end(place: str, source: Path, whole: Path, tmp_path: Path) -> None:
    moments = MOMENTS if ":" not in place else ("",)
    for moment in moments:
        out = tmp_path / moment
        assert run(source, out, failpoint=f"{moment}:{place}".lstrip(":")) == -signal.SIGKILL, (moment, place)
        if (out / "_segface" / "run.json").exists():
            # What a reader may open is whole, and the output does not look complete.
            assert {name: data for name, data in drivers.parts(out).items() if name.endswith(".parquet")}.items() <= (
                drivers.parts(whole).items()
            )
            assert verify(str(out)).complete == ((moment, place) == ("after", "manifest.json"))
        assert run(source, out) == 0
        report = verify(str(out))
        assert (report.findings, report.status) == ({}, {"error": 1, "ok": 59})
        assert drivers.parts(out) == drivers.parts(whole)
        assert (out / "_segface" / "manifest.json").read_bytes() == (whole / "_segface" / "manifest.json").read_bytes()


@pytest.mark.parametrize(
    "place",
    [
        "retries/0001.json",
        "retry-0001",
        "masks/part-00000",
        "shapes/part-00000",
        "stats/part-00000",
        "parts/part-00000",
        "0001.done",
    ],
)
def test_a_death_while_errors_are_tried_again_changes_nothing_in_the_end(
    place: str, source: Path, tmp_path: Path
) -> None:
    fixed = tmp_path / "in"
    shutil.copytree(source, fixed)
    assert run(fixed, tmp_path / "broken") == 0
    good = fixed / "0007.png"
    good.write_bytes((source / "0008.png").read_bytes())
    assert run(fixed, tmp_path / "whole") == 0
    expected = drivers.parts(tmp_path / "whole")
    for moment in MOMENTS:
        out = tmp_path / moment
        shutil.copytree(tmp_path / "broken", out)
        assert run(fixed, out, "retry", failpoint=f"{moment}:{place}") == -signal.SIGKILL
        assert run(fixed, out, "retry") == 0
        report = verify(str(out))
        assert (report.findings, report.status) == ({}, {"ok": 60})
        assert drivers.parts(out) == expected
