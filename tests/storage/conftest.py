"""A folder of a bucket behind the fault proxy, through either client."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from segface_batch import storage
from segface_batch.storage import options, retry
from tests.fault_proxy import RunningProxy
from tests.s3_server import REGION, S3Server, secret_of

#: `retry.SECONDS` in these tests.
SECONDS = 3.0


@dataclass
class Folder:
    client: str
    bucket: str
    prefix: str
    proxy: RunningProxy
    boto: Any  # past the proxy, as administrator
    local: Path

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def keep(self, name: str, content: bytes) -> None:
        self.boto.put_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}", Body=content)

    def kept(self) -> dict[str, bytes]:
        """Every object, by name."""
        at = f"{self.prefix}/"
        keys = [found["Key"] for found in self.boto.list_objects_v2(Bucket=self.bucket, Prefix=at).get("Contents", ())]
        return {key.removeprefix(at): self.boto.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in keys}

    def configure(self, access_key: str | None = "ci-admin", **changes: Any) -> None:
        """Options in a file, as a user gives them; None for no keys."""
        given: dict[str, Any] = {
            "endpoint_url": self.proxy.url,
            "client_kwargs": {"region_name": REGION},
        }
        if access_key is not None:
            given |= {"key": access_key, "secret": secret_of(access_key)}
        file = self.local / "options.json"
        file.write_text(json.dumps(given | changes))
        storage.configure(str(file), self.client)

    def faults(self, *rules: dict[str, Any]) -> None:
        self.proxy.set_faults(list(rules))

    def requests(self) -> dict[str, int]:
        """How many requests of each method there were since the last `faults`."""
        counts = Counter(self.proxy.stats()["counts"])
        return {name: count for name, count in counts.items() if not name.startswith("fault:")}


@pytest.fixture(scope="session")
def shared_bucket(s3_server: S3Server) -> tuple[str, Any]:
    """A bucket for many tests (a new one takes a moment), and a client for it."""
    return s3_server.new_bucket(), s3_server.client()


@pytest.fixture(scope="module", params=options.S3_CLIENTS)
def client(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each client in turn for all tests of a module, which share its connections."""
    yield request.param
    storage.configure(None)


@pytest.fixture
def folder(client: str, shared_bucket: tuple[str, Any], s3_proxy: RunningProxy, tmp_path: Path) -> Iterator[Folder]:
    name, boto = shared_bucket
    found = Folder(client, name, uuid.uuid4().hex[:8], s3_proxy, boto, tmp_path)
    usual, retry.SECONDS = retry.SECONDS, SECONDS
    found.configure()
    yield found
    retry.SECONDS = usual
