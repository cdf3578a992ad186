"""A job on two hosts with the images on a third: one host is powered off, or cut off and goes on writing."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import drivers, s3_server, stand_in
from tests.programs import hosts as on_hosts
from tests.programs.hosts import Hosts

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]  # Ray gives up a host that is cut off after 7 minutes

IMAGES = 160


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    if (reason := on_hosts.missing()) is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("hosts") / "in"
    drivers.write_images(folder, IMAGES, dict.fromkeys(range(IMAGES), stand_in.SLOW))
    begin = time.monotonic()
    with on_hosts.running(1) as found:
        print(f"two hosts and S3 after {time.monotonic() - begin:.0f} s")
        found.copy_in(folder, "s3://inputs/faces")
        yield found


def by_host(log: Path) -> Counter[str]:
    """Images parsed by each host."""
    found: Counter[str] = Counter()
    for unit in on_hosts.parsed(log):
        found[unit.host] += unit.images
    return found


def start(hosts: Hosts, out: str, *words: object) -> subprocess.Popen[str]:
    """A run that is at work on both hosts."""
    hosts.log.unlink(missing_ok=True)
    job = hosts.annotate("s3://inputs/faces", out, "Counted", "--part-rows", 40, *words)
    while set(by_host(hosts.log)) != {"h", "w1"}:
        assert job.poll() is None, job.communicate()[0]
        time.sleep(0.1)
    return job


def end(hosts: Hosts, job: subprocess.Popen[str], since: float, out: str) -> subprocess.CompletedProcess[str]:
    told, _ = job.communicate(timeout=400)
    print(told)
    print(f"done {time.monotonic() - since:.0f} s later; images by host: {dict(by_host(hosts.log))}")
    assert job.returncode == 0
    checked = hosts.run("verify", out)
    print(checked.stdout)
    return checked


def test_the_doctor_looks_at_every_host(hosts: Hosts) -> None:
    job = hosts.submit("doctor", "s3://inputs/faces", "s3://outputs/runs/doctor")
    told, _ = job.communicate(timeout=400)
    assert job.returncode == 0, told
    lines = [line for line in told.splitlines() if "output: remove" in line]
    assert [line.split(",")[0] for line in lines] == [
        "ok      output: remove: removed",
        *sorted(["ok      h (198.51.100.1)", "ok      w1 (198.51.100.11)"]),
    ], told


def test_a_host_is_powered_off(hosts: Hosts) -> None:
    out = "s3://outputs/runs/power"
    job = start(hosts, out)
    hosts("power-off", "w1")
    checked = end(hosts, job, time.monotonic(), out)
    assert checked.returncode == 0, checked.stdout
    assert f"complete: each of {IMAGES} images is there exactly once" in checked.stdout
    again = hosts.submit("annotate", "s3://inputs/faces", out, "--network", "tests.stand_in:Counted",
                         "--part-rows", 40)  # fmt: skip
    assert "no image was left to annotate" in again.communicate(timeout=400)[0]
    secret = s3_server.secret_of(on_hosts.USER)
    found = hosts("exec", "h", "bash", "-c", f"grep -rlF {secret} /tmp/ray || true")
    assert found == ""


def test_a_host_is_cut_off_and_goes_on_writing(hosts: Hosts) -> None:
    out = "s3://outputs/runs/cut"
    late: dict[str, Any] = {"SEGFACE_FAILPOINT": "before:unit-", "SEGFACE_FAILPOINT_PAUSE": "8"}
    hosts("worker", 1, **late)
    job = start(hosts, out)
    hosts("cut", "w1", "h")
    cut, at = time.monotonic(), time.time()
    # The driver gives up a request to a host that is cut off after 7 minutes (Ray's gRPC keepalive), sooner only where
    # the host is back, which ends its processes.
    time.sleep(60)
    hosts("heal", "w1", "h")
    checked = end(hosts, job, cut, out)
    assert f"{IMAGES} ok" in checked.stdout.replace(",", "")
    assert {line.partition(":")[0] for line in checked.stdout.splitlines()} <= {
        "4 of 4 parts are published", "rows", "orphaned", "not as a run leaves it", "complete"
    }  # fmt: skip
    zombie = [unit for unit in on_hosts.parsed(hosts.log) if unit.host == "w1" and unit.time > at]
    print(f"the host that was cut off parsed {len(zombie)} units afterwards")
    assert zombie
