"""Runs that are killed, poisoned, starved or cut off: nothing is lost, nothing is twice, and the end is the same bytes.

The seeds of what is random are printed; tests/programs/fault_storm.py goes on for hundreds of kills.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from segface_batch import annotate, storage
from segface_batch.output import lease, schema
from segface_batch.output.verify import verify
from segface_batch.progress import Silence
from segface_batch.storage import failpoint
from tests import drivers, fault_proxy, s3_server as server_of_tests, stand_in

pytestmark = pytest.mark.usefixtures("ray_session")

INTERRUPTIONS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults") / "in"
    drivers.write_images(folder, marks=dict.fromkeys((20, 30, 45), stand_in.SLOW))
    return folder


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The parts of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert annotate(drivers.job(source, out)).status == {"ok": drivers.IMAGES}
    assert verify(str(out)).complete
    return drivers.parts(out)


def until(what: Callable[[], Any], driver: subprocess.Popen[str] | None = None, seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        assert driver is None or driver.poll() is None, driver.communicate()
        time.sleep(0.02)
    return found


@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, *(pytest.param(number, marks=pytest.mark.slow) for number in INTERRUPTIONS)],
)
def test_a_stopped_run_is_finished_by_the_same_command(
    number: signal.Signals, source: Path, whole: dict[str, bytes], ray_address: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    driver = drivers.start(source, out, RAY_ADDRESS=ray_address)
    until(lambda: drivers.staged_units(out), driver)
    driver.send_signal(number)
    sent = time.monotonic()
    _, told = driver.communicate(timeout=30)
    if number != signal.SIGKILL:
        assert time.monotonic() - sent < 3
        assert "the same command again goes on where it stopped" in told
    assert driver.returncode == (128 + number if number in INTERRUPTIONS else -number)
    assert not verify(str(out)).complete

    summary = annotate(drivers.job(source, out))
    assert 0 < summary.parsed < drivers.IMAGES
    assert verify(str(out)).complete
    assert drivers.parts(out) == whole


class Counts(Silence):
    """Remembers how many images have rows already whenever units are handed out."""

    def __init__(self) -> None:
        self.starts: list[int] = []

    def start(self, done: int) -> None:
        self.starts.append(done)


class StopsAtTheEnd(Counts):
    """Ctrl-C when the last unit is staged."""

    def images(self, done: int, total: int, errors: int) -> None:
        if done == total:
            raise KeyboardInterrupt


def test_a_run_stopped_between_its_last_unit_and_its_last_part_is_finished_by_the_same_command(
    source: Path, tmp_path: Path
) -> None:
    job, first, second = drivers.job(source, tmp_path / "out", part_rows=drivers.IMAGES), StopsAtTheEnd(), Counts()
    with pytest.raises(KeyboardInterrupt):
        annotate(job, first)
    assert not (tmp_path / "out" / "stats").exists()
    summary = annotate(job, second)
    assert (first.starts, second.starts) == ([0], [drivers.IMAGES])
    assert (summary.parsed, summary.status) == (0, {"ok": drivers.IMAGES})
    assert verify(str(tmp_path / "out")).complete


class Stopped(BaseException):
    """As if the process ended there, for nobody catches it."""


@contextlib.contextmanager
def stopped_at(write: int) -> Iterator[list[str]]:
    """The driver stops when it has written, or is about to remove, so many objects; the last one's place, if it did."""
    places, stop = itertools.count(1), []

    def reached(moment: str, place: str) -> None:
        driver = threading.current_thread() is threading.main_thread()
        if driver and moment in ("after", "removing") and next(places) == write:
            stop.append(place)
            raise Stopped

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Stopped):
        patch.setattr(failpoint, "reached", reached)
        yield stop


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "status"), [("new", {"error": 1, "ok": 10}), ("retry_errors", {"ok": 10})])
def test_a_driver_that_stops_after_any_of_its_writes_is_followed_by_one_that_finishes(
    asked: str, status: dict[str, int], tmp_path: Path
) -> None:
    folder, before = tmp_path / "in", tmp_path / "before"
    drivers.write_images(folder, 10)
    good = (folder / "0007.png").read_bytes()
    (folder / "0007.png").write_bytes(good[:1000])
    annotate(drivers.job(folder, before, part_rows=8))
    for name in ("0007.png", "0010.png"):
        (folder / name).write_bytes(good)
    write, stop = 0, ["not yet"]
    while stop:
        write += 1
        shutil.copytree(before, out := tmp_path / f"out-{write}")
        # The lease that the first leaves names this process, which still lives.
        job = drivers.job(folder, out, part_rows=8, takeover=True, **{asked: True})
        with stopped_at(write) as stop:
            annotate(job)
        annotate(job)
        report = verify(str(out))
        assert report.complete, (write, report)
        assert report.status == status, (write, report)
    assert write > 5


@pytest.mark.slow
def test_a_killed_actor_or_worker_is_replaced(
    source: Path, whole: dict[str, bytes], ray_address: str, tmp_path: Path
) -> None:
    out, rng = tmp_path / "out", random.Random(seed := random.randrange(10**6))
    print("seed", seed)
    driver = drivers.start(source, out, RAY_ADDRESS=ray_address)
    until(lambda: drivers.staged_units(out), driver)
    for word in ("MapBatches(Worker)", "ray::"):
        workers = until(lambda word=word: drivers.workers(word), driver)
        rng.choice(workers).kill()
    _, told = driver.communicate(timeout=120)
    assert driver.returncode == 0, told
    assert verify(str(out)).complete
    assert drivers.parts(out) == whole


@pytest.mark.slow
def test_an_image_that_kills_its_worker_becomes_an_error_row(
    tmp_path: Path, ray_address: str, whole: dict[str, bytes]
) -> None:
    drivers.write_images(tmp_path / "in", 32, {11: stand_in.DEADLY})
    mended = tmp_path / "in" / "0013.png"
    good = mended.read_bytes()
    mended.write_bytes(b"")
    summary = annotate(drivers.job(tmp_path / "in", tmp_path / "out"))
    assert (summary.status, summary.errors) == ({"error": 2, "ok": 30}, {"crashed": 1, "empty": 1})
    mended.write_bytes(good)
    summary = annotate(drivers.job(tmp_path / "in", tmp_path / "out", retry_errors=True))
    assert (summary.parsed, summary.status, summary.errors) == (2, {"error": 1, "ok": 31}, {"crashed": 1})
    report = verify(str(tmp_path / "out"))
    assert report.complete, report
    # Actors that died are started again by Ray; none is left, or each would keep a CPU from what comes next.
    until(lambda: ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"], seconds=30)


@pytest.mark.slow
def test_two_drivers_do_not_work_on_one_output_unless_told_to(
    source: Path, whole: dict[str, bytes], ray_address: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = drivers.start(source, out, RAY_ADDRESS=ray_address)
    until(lambda: (out / "_segface" / "lease.json").exists(), first)
    with pytest.raises(RuntimeError, match=rf"another run \(host .*, process {first.pid}\) is working on"):
        annotate(drivers.job(source, out))
    first.send_signal(signal.SIGSTOP)  # a zombie that will wake
    summary = annotate(drivers.job(source, out, takeover=True))
    assert summary.status == {"ok": drivers.IMAGES}
    assert drivers.parts(out) == whole
    first.send_signal(signal.SIGCONT)
    first.communicate(timeout=60)
    report = verify(str(out))
    assert set(report.findings) <= {"orphaned"}, report
    assert {name: data for name, data in drivers.parts(out).items() if not name.endswith(".tmp")} == whole


@pytest.mark.slow
def test_new_images_become_parts_of_their_own(source: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    images = sorted(source.iterdir())
    for image in images[:40]:
        (folder / image.name).write_bytes(image.read_bytes())
    annotate(drivers.job(folder, out))
    before = drivers.parts(out)
    for image in images[40:]:
        (folder / image.name).write_bytes(image.read_bytes())
    assert annotate(drivers.job(folder, out)).parsed == 0
    summary = annotate(drivers.job(folder, out, new=True))
    assert (summary.parsed, summary.images) == (20, 60)
    after = drivers.parts(out)
    assert {name: after[name] for name in before} == before
    assert sorted(set(after) - set(before)) == [f"{table}/part-00002.parquet" for table in sorted(schema.TABLES)]
    assert verify(str(out)).complete
    assert annotate(drivers.job(folder, out, new=True)).parsed == 0
    assert drivers.parts(out) == after


def test_errors_are_tried_again_when_asked(source: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    drivers.write_images(folder, 30)
    good = {number: (folder / f"{number:04d}.png").read_bytes() for number in (3, 28)}
    for number, data in good.items():
        (folder / f"{number:04d}.png").write_bytes(data[:1000])
    assert annotate(drivers.job(folder, out)).errors == {"truncated": 2}
    for number, data in good.items():
        (folder / f"{number:04d}.png").write_bytes(data)
    assert annotate(drivers.job(folder, out)).parsed == 0
    stopped, again = StopsAtTheEnd(), Counts()
    with pytest.raises(KeyboardInterrupt):
        annotate(drivers.job(folder, out, retry_errors=True), stopped)
    # What was retried is not retried again, and the retry ends even where nobody asks for one.
    summary = annotate(drivers.job(folder, out), again)
    assert (stopped.starts, again.starts) == ([28], [30])
    assert (summary.parsed, summary.status) == (0, {"ok": 30})
    assert verify(str(out)).complete
    assert annotate(drivers.job(folder, out, retry_errors=True)).parsed == 0


def test_too_many_errors_stop_a_run(tmp_path: Path) -> None:
    drivers.write_images(tmp_path / "in", 20)
    for number in range(4):
        (tmp_path / "in" / f"{number:04d}.png").write_bytes(b"")
    job = drivers.job(tmp_path / "in", tmp_path / "out", max_errors=3)
    with pytest.raises(RuntimeError, match="4 images have errors, more than --max-errors 3"):
        annotate(job)
    (log,) = (tmp_path / "out" / "_segface" / "events").iterdir()
    start, stop = map(json.loads, log.read_text().splitlines())
    assert (start["event"], start["images"], start["cluster"]["nodes"]) == ("start", 20, 1)
    assert (stop["event"], stop["errors"]) == ("stop", 4)
    assert stop["reason"].startswith("RuntimeError: 4 images have errors, more than --max-errors 3")
    assert {"fetch", "decode", "stage"} <= set(stop["seconds"])


def test_as_many_errors_as_are_allowed_stop_nothing(tmp_path: Path) -> None:
    drivers.write_images(tmp_path / "in", 8)
    for number in range(2):
        (tmp_path / "in" / f"{number:04d}.png").write_bytes(b"")
    with pytest.raises(RuntimeError, match="2 images have errors, more than --max-errors 0"):
        annotate(drivers.job(tmp_path / "in", tmp_path / "none", max_errors=0))
    assert annotate(drivers.job(tmp_path / "in", tmp_path / "two", max_errors=2)).errors == {"empty": 2}


class TakenOver(Silence):
    """Another machine's run takes over when the first unit is staged."""

    def __init__(self, out: Path) -> None:
        self.place = out / "_segface" / "lease.json"
        self.told: list[int] = []

    def images(self, done: int, total: int, errors: int) -> None:
        self.told.append(done)
        mine = json.loads(self.place.read_text())
        self.place.write_text(json.dumps(mine | {"run": "other", "host": "node-7", "pid": 12}))
        time.sleep(1)


def test_a_run_that_was_taken_over_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drivers.write_images(tmp_path / "in", 20)
    monkeypatch.setattr(lease, "BEAT", 0.1)
    taken_over = TakenOver(tmp_path / "out")
    with pytest.raises(
        RuntimeError, match=r"another run \(host node-7, process 12\) has taken over this output, so this"
    ):
        annotate(drivers.job(tmp_path / "in", tmp_path / "out"), taken_over)
    assert len(taken_over.told) == 1
    assert json.loads(taken_over.place.read_text())["run"] == "other"


def ray_logs() -> str:
    from ray._private import worker

    node: Any = worker._global_node
    return f"{node.get_session_dir_path()}/logs"


class OnS3:
    """A job on the S3 server, seen through a proxy."""

    def __init__(
        self, server: server_of_tests.S3Server, proxy: fault_proxy.RunningProxy, source: Path, folder: Path
    ) -> None:
        self.proxy, bucket = proxy, server.new_bucket()
        self.options = drivers.storage_options(proxy.url, folder / "storage.json")
        storage.configure(str(self.options))
        self.source, self.out = f"s3://{bucket}/in", f"s3://{bucket}/out"
        for image in sorted(source.iterdir()):
            storage.put(f"{self.source}/{image.name}", image.read_bytes())

    def job(self, **settings: Any) -> Any:
        return drivers.job(self.source, self.out, storage_options=str(self.options), **settings)


@pytest.fixture
def on_s3(
    s3_server: server_of_tests.S3Server, s3_proxy: fault_proxy.RunningProxy, source: Path, tmp_path: Path
) -> Iterator[OnS3]:
    yield OnS3(s3_server, s3_proxy, source, tmp_path)
    storage.configure(None)


def test_a_run_on_s3_asks_once_for_each_image_and_keeps_its_secret(on_s3: OnS3) -> None:
    on_s3.proxy.set_faults([])
    assert annotate(on_s3.job()).status == {"ok": drivers.IMAGES}
    requests = on_s3.proxy.stats()["log"]
    images = [(method, path) for method, path, _ in requests if path.split("?")[0].endswith(".png")]
    assert sorted(set(images)) == sorted(images)
    assert {method for method, _ in images} == {"GET"}
    assert len(images) == drivers.IMAGES
    print(on_s3.proxy.stats()["counts"])
    report = verify(on_s3.out)
    assert report.complete, report
    secret = server_of_tests.secret_of("ci-admin").encode()
    assert secret in on_s3.options.read_bytes()
    written = [entry.place for entry in storage.list_objects(on_s3.out)]
    assert [place for place in written if secret in storage.read(place)] == []
    logs = list(Path(ray_logs()).rglob("*.*"))
    assert logs
    assert [path for path in logs if path.is_file() and secret in path.read_bytes()] == []


@pytest.mark.slow
def test_a_run_on_a_bad_s3_ends_with_the_same_bytes(on_s3: OnS3) -> None:
    annotate(on_s3.job())
    expected, out = drivers.parts(on_s3.out), on_s3.out
    on_s3.out = f"{out}-faults"
    on_s3.proxy.set_faults(
        [
            {"fault": "slowdown", "p": 0.05},
            {"fault": "error500", "p": 0.05},
            {"fault": "reset", "p": 0.05},
            {"fault": "partial", "p": 0.05, "method": "GET"},
            {"fault": "flip", "p": 0.05, "method": "GET", "match": ".png"},
            {"fault": "lost_ack", "p": 0.2, "method": "PUT"},
        ]
    )
    assert annotate(on_s3.job()).status == {"ok": drivers.IMAGES}
    on_s3.proxy.set_faults([])
    report = verify(on_s3.out)
    assert report.complete, report
    assert drivers.parts(on_s3.out) == expected


@pytest.mark.slow
def test_revoked_credentials_stop_a_run_soon_and_it_goes_on_later(on_s3: OnS3, ray_address: str) -> None:
    words = ["--storage-options", on_s3.options]
    driver = drivers.start(on_s3.source, on_s3.out, *words, RAY_ADDRESS=ray_address)
    until(lambda: storage.list_names(f"{on_s3.out}/_segface/staging", ".arrow"), driver)
    on_s3.proxy.set_faults([{"fault": "denied"}])
    denied = time.monotonic()
    _, told = driver.communicate(timeout=60)
    assert time.monotonic() - denied < 20
    assert driver.returncode == 1
    assert "AccessDenied" in told.splitlines()[-1], told
    on_s3.proxy.set_faults([])
    assert annotate(on_s3.job()).status == {"ok": drivers.IMAGES}
    report = verify(on_s3.out)
    assert report.complete, report


@pytest.mark.slow
def test_a_full_disk_stops_a_run_and_it_goes_on_later(
    source: Path, whole: dict[str, bytes], ray_address: str, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", small], check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        with pytest.raises((OSError, RuntimeError), match="No space left on device"):
            annotate(drivers.job(source, small / "out"))
        assert not [name for name in drivers.parts(small / "out") if name.endswith(".tmp")]
        subprocess.run(["mount", "-o", "remount,size=100m", small], check=True)
        annotate(drivers.job(source, small / "out"))
        assert verify(str(small / "out")).complete
        assert drivers.parts(small / "out") == whole
    finally:
        subprocess.run(["umount", "-l", small], check=True)
