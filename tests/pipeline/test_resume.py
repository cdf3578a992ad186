"""A run that is stopped, however, is finished by the same command, with the output of one that was not."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from segface_batch import Job, annotate
from tests import corpus
from tests.conftest import SMALL

IMAGES = 40


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume") / "in"
    corpus.write_corpus(folder, good=IMAGES)
    return folder


def job(images: Path, out: Path, weights: Path) -> Job:
    return Job(str(images), str(out), checkpoint=SMALL, weights=str(weights), part_rows=16)


def parts(out: Path) -> dict[str, bytes]:
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in out.glob("*/*.parquet")}


@pytest.fixture(scope="module")
def whole(images: Path, weights: Path, ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that nothing stopped."""
    out = tmp_path_factory.mktemp("whole") / "out"
    annotate(job(images, out, weights))
    return out


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.long),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.long),
    ],
)
def test_a_stopped_run_is_finished_by_the_same_command(
    number: signal.Signals, code: int, images: Path, weights: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "segface_batch.cli", "annotate", images, out, "--checkpoint", SMALL]
    command = [*map(str, command), "--weights", str(weights), "--part-rows", "16"]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list(out.glob("_segface/staging/*/*.arrow")):
        assert driver.poll() is None, driver.communicate()
        time.sleep(0.05)
    started = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(number)
    _, told = driver.communicate(timeout=30)
    assert driver.returncode == code
    assert ("goes on where it stopped" in told) == (number != signal.SIGKILL)
    assert not (out / "_segface" / "manifest.json").exists()

    summary = annotate(job(images, out, weights))
    assert 0 < summary.parsed < IMAGES
    assert parts(out) == parts(whole)
    assert summary.status == {"ok": IMAGES}
    # After a kill -9 Ray's agents end when they find their raylet gone, up to a minute later.
    _, alive = psutil.wait_procs(started, timeout=90)
    assert alive == []
