"""Hosts of their own on this machine (netns_cluster.sh): a head, workers, an S3 server and a client, and how fast two
hosts are beside one.

    python -m tests.programs.hosts --images 600    as root: images/s of one host and of two, a core each
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pipelines.benchmarks import corpus
from tests import s3_server, stand_in

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("netns_cluster.sh")
ENDPOINT = "http://198.51.100.50:9000"

#: Who the hosts are on S3: a user with the permissions that a run needs, and no others.
USER = "ci-run"

#: A host that is cut off counts as dead after 10 to 15 seconds (Ray's default: about 70).
HEALTH = {"initial_delay_ms": 1000, "period_ms": 2000, "timeout_ms": 5000, "failure_threshold": 4}


class Batch(NamedTuple):
    """Images, each of one crop, that stand_in.Counted has parsed together; `time` in seconds since the epoch."""

    host: str
    node: str
    images: int
    time: float


def parsed(log: Path) -> list[Batch]:
    words = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    return [Batch(host, node, int(images), float(at)) for host, node, images, at in words]


class Hosts:
    """`h` is the head, `w1` and so on are workers; images are copied and results read from `cli`."""

    def __init__(self, state: Path, *options: str) -> None:
        self.state, self.log = state, state / "parsed"
        prefix = f"t{uuid.uuid4().hex[:3]}"
        self.command = [str(SCRIPT), "--venv", sys.prefix, "--state", str(state), "--prefix", prefix, *options]
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
        self.environment |= {f"RAY_health_check_{name}": str(value) for name, value in HEALTH.items()}
        self.environment |= {"PYTHONPATH": str(ROOT), "RAY_metrics_report_interval_ms": "1000"}
        self.environment |= {stand_in.LOG: str(self.log), **user(USER)}
        (state / "s3.json").write_text(json.dumps(s3_server.identities()))

    def __call__(self, *words: object, **environment: str) -> str:
        """What a command of the script prints on stdout."""
        done = subprocess.run(
            [*self.command, *map(str, words)],
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=900,
        )
        return done.stdout

    def copy_in(self, folder: Path, url: str) -> None:
        """Copy a folder of images to S3, as administrator."""
        self("exec", "cli", sys.executable, "-m", "tests.programs.hosts", "--copy", folder, url, **user("ci-admin"))

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        """segface-batch on the client."""
        command = [*self.command, "exec", "cli", sys.executable, "-m", "segface_batch.cli", *map(str, words)]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=400)

    def submit(self, *words: object) -> subprocess.Popen[str]:
        """segface-batch as a job, submitted from the client."""
        command = [*self.command, "job", "submit", "--", "segface-batch", *map(str, words)]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def annotate(self, source: str, out: str, network: str, *words: object) -> subprocess.Popen[str]:
        return self.submit("annotate", source, out, "--network", f"tests.stand_in:{network}", *words)


def user(access_key: str) -> dict[str, str]:
    secret = {"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": s3_server.secret_of(access_key)}
    return {"AWS_ENDPOINT_URL": ENDPOINT, "AWS_REGION": s3_server.REGION, **secret}


def missing() -> str | None:
    """What this machine lacks."""
    if os.geteuid() != 0:
        return "needs root"
    for program in ("ip", "unshare", "nsenter", "curl"):
        if shutil.which(program) is None:
            return f"needs {program}"
    name = f"t{uuid.uuid4().hex[:8]}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        return "needs permission to make network namespaces"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


@contextmanager
def running(workers: int, *options: str) -> Iterator[Hosts]:
    state = Path(tempfile.mkdtemp(prefix="hosts-"))  # a short path: sockets lie in it
    hosts = Hosts(state, *options)
    try:
        hosts("up", workers)
        hosts("s3")
        yield hosts
    finally:
        hosts("down")
        shutil.rmtree(state)


def rate(batches: list[Batch]) -> float:
    """Images/s from the first batch to the last."""
    first, *others = sorted(batches, key=lambda batch: batch.time)
    return sum(batch.images for batch in others) / (others[-1].time - first.time)


def speed_up(images: int) -> None:
    rates: list[float] = []
    with corpus.folder(images, [path.read_bytes() for path in corpus.RENDERED]) as folder:
        for workers in (0, 1):
            with running(workers, "--pin") as hosts:
                hosts.copy_in(folder / "in", "s3://inputs/speed")
                out = "s3://outputs/runs/speed"
                job = hosts.annotate("s3://inputs/speed", out, "CountedNetwork", "--actors", workers + 1)
                told, _ = job.communicate()
                assert job.returncode == 0, told
                batches = parsed(hosts.log)
            by_host = {host: sum(batch.images for batch in batches if batch.host == host) for host in ("h", "w1")}
            rates.append(rate(batches))
            print(f"{workers + 1} hosts: {rates[-1]:.1f} images/s", by_host, flush=True)
    print(f"speed-up of two hosts over one: {rates[1] / rates[0]:.2f}")


def copy(folder: str, url: str) -> None:
    from segface_batch import storage

    for path in sorted(Path(folder).iterdir()):
        storage.put(f"{url}/{path.name}", path.read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--copy", nargs=2, metavar=("FOLDER", "URL"), help="copy images to S3 (used inside)")
    chosen = parser.parse_args()
    if chosen.copy:
        copy(*chosen.copy)
    elif (reason := missing()) is not None:
        raise SystemExit(reason)
    else:
        speed_up(chosen.images)


if __name__ == "__main__":
    main()
