"""The Ray that a run starts for itself."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
import ray.exceptions

from segface_batch.pipeline import cluster
from tests import drivers, stand_in
from tests.conftest import PORTRAITS

#: Three actors of Ray's own, two workers, and one that hands out units and publishes; it may have one or two beside it.
WORKERS = 8


def test_a_cluster_that_asks_for_no_token_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert cluster.warning() is None
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert "asks for no token" in (cluster.warning() or "")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert cluster.warning() is None


def test_a_cluster_that_is_not_there_is_named_in_one_line(
    command: Callable[..., subprocess.CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    begin = time.monotonic()
    done = command("annotate", PORTRAITS, "out", "--checkpoint", "demo-synthetic", RAY_ADDRESS=address)
    assert time.monotonic() - begin < 30
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"segface-batch: no Ray answers at RAY_ADDRESS={address} (Connection refused); start the cluster, correct the "
        "address, or unset RAY_ADDRESS to run on this machine"
    )
    for address in ("127.0.0.1:99999", "no-such-host.invalid:6379", "a..b:6379"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        monkeypatch.setattr(cluster, "ANSWER_SECONDS", 0.0)
        with pytest.raises(RuntimeError, match=f"no Ray answers at RAY_ADDRESS={address}"):
            cluster.check_address()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_waits_for_a_silent_cluster_ends_at_once(number: signal.Signals, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        driver = drivers.start(PORTRAITS, tmp_path / "out", RAY_ADDRESS=address)
        assert driver.stderr is not None
        while driver.stderr.readline() != "starting Ray ...\n":
            assert driver.poll() is None
        time.sleep(3)
        driver.send_signal(number)
        sent = time.monotonic()
        _, told = driver.communicate(timeout=30)
        assert time.monotonic() - sent < 3
    assert driver.returncode == 128 + number
    assert "interrupted" in told.splitlines()[-1]


def test_errors_of_ray_are_one_line_with_a_hint() -> None:
    mismatch = RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.60.0\n    Python: 3.11.7")
    assert cluster.one_line(mismatch) == (
        "Version mismatch: The cluster was started with: Ray: 2.60.0 Python: 3.11.7; install the cluster's versions of "
        "Ray and Python here, or run the command on the cluster"
    )
    assert cluster.one_line(ConnectionError()) == "ConnectionError"
    assert cluster.one_line(ConnectionError("x" * 500)) == "x" * 500
    assert cluster.one_line(ConnectionError("x" * 501)) == "x" * 500


def test_the_error_of_a_worker_is_its_last_line_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    told = "worker\n  Traceback\nValueError: http://host/a.jpg?sig=secret is gone\n\n"
    with pytest.raises(RuntimeError) as caught, cluster.ray_running():
        raise ray.exceptions.RayError(told)
    assert str(caught.value) == (
        "a worker failed: ValueError: http://host/a.jpg?sig=REDACTED is gone (what is done is kept; the same command "
        "goes on from there)"
    )


def test_a_run_starts_a_ray_of_its_own_with_a_cpu_for_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_num_workers_soft_limit", "64")  # to be put back as it was
    assert cluster.local_settings() == {
        "address": "local", "num_cpus": cluster.cpus() + 1, "include_dashboard": False,
    }  # fmt: skip


def test_ray_is_started_without_a_home_that_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.setenv(name, "")  # to be put back as it was
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/proc")
    cluster.local_settings()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of the user")
    cluster.local_settings()
    assert os.environ["RAY_AUTH_TOKEN"] == "of the user"


def test_a_process_that_may_use_one_core_counts_one() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    code += "from segface_batch.pipeline import cluster; print(cluster.cpus())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.slow
def test_a_containers_quota_is_counted() -> None:
    """cgroup v1, as root: what docker --cpus=1 shows, with every core in the affinity."""
    group = Path("/sys/fs/cgroup/cpu/segface-test")
    try:
        group.mkdir()
        (group / "cpu.cfs_period_us").write_text("100000")
        (group / "cpu.cfs_quota_us").write_text("100000")
    except OSError:
        pytest.skip("needs to make a cgroup (v1)")
    code = "from segface_batch.pipeline import cluster; print(cluster.cpus())"
    script = f"mount --bind {group} /sys/fs/cgroup/cpu && exec {sys.executable} -c '{code}'"
    try:
        done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False)
    finally:
        group.rmdir()
    if done.returncode:
        pytest.skip(done.stderr)
    assert done.stdout == "1\n"


@pytest.mark.long
def test_a_local_ray_keeps_its_workers(tmp_path: Path) -> None:
    drivers.write_images(tmp_path / "in", 240, marks=dict.fromkeys(range(240), stand_in.SLOW))
    driver = drivers.start(tmp_path / "in", tmp_path / "out", RAY_ADDRESS="")
    _, told = driver.communicate(timeout=300)
    assert driver.returncode == 0, told
    (session,) = Path("/tmp/ray").glob(f"session_*_{driver.pid}")
    workers = len(list(session.glob("logs/worker-*.out")))
    print(f"{workers} workers")
    assert workers <= WORKERS
