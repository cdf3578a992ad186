"""A bucket behind the fault proxy, through either client."""

from __future__ import annotations

import json
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

#: How long the clients try in these tests.
SECONDS = 3.0


@dataclass
class Bucket:
    client: str
    name: str
    server: S3Server
    proxy: RunningProxy
    folder: Path

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    @property
    def boto(self) -> Any:
        """A client of its own, past the proxy."""
        return self.server.client()

    def configure(self, access_key: str | None = "ci-admin", **changes: Any) -> None:
        """Options in a file, as a user gives them; None for no keys."""
        given: dict[str, Any] = {
            "endpoint_url": self.proxy.url,
            "client_kwargs": {"region_name": REGION},
        }
        if access_key is not None:
            given |= {"key": access_key, "secret": secret_of(access_key)}
        file = self.folder / "options.json"
        file.write_text(json.dumps(given | changes))
        storage.configure(str(file), self.client)

    def faults(self, *rules: dict[str, Any]) -> None:
        self.proxy.set_faults(list(rules))

    def requests(self) -> dict[str, int]:
        """How many requests of each method there were since the last `faults`."""
        counts = Counter(self.proxy.stats()["counts"])
        return {name: count for name, count in counts.items() if not name.startswith("fault:")}


@pytest.fixture(params=options.S3_CLIENTS)
def bucket(
    request: pytest.FixtureRequest, s3_server: S3Server, s3_bucket: str, s3_proxy: RunningProxy, tmp_path: Path
) -> Iterator[Bucket]:
    found = Bucket(request.param, s3_bucket, s3_server, s3_proxy, tmp_path)
    usual, retry.SECONDS = retry.SECONDS, SECONDS
    found.configure()
    yield found
    retry.SECONDS = usual
    storage.configure(None)
