"""What tests share: one Ray, one small checkpoint, one way to call the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import segface_batch
from segface_batch import catalog
from tests import fault_proxy, s3_server as server_of_tests

# With it every worker that Ray starts would compile its packages again, for seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

#: The smallest published checkpoint: 28 MB of weights.
SMALL = "mobilenet_celeba_512"

#: Two images and their credits.
PORTRAITS = Path(segface_batch.__file__).parent / "assets" / "faces" / "portraits"


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests keep for later, they keep for each other only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGFACE_BATCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the published layout for SMALL, its weights filled by rule: real shapes, meaningless masks."""
    from tests import filled

    return filled.published_file(SMALL, tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def hub(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face home whose cache has the published file of SMALL, as if it had been fetched."""
    home = tmp_path_factory.mktemp("hub")
    repository = home / "hub" / f"models--{catalog.HUB_REPOSITORY.replace('/', '--')}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    file = repository / "snapshots" / commit / catalog.find(SMALL).hub_file
    file.parent.mkdir(parents=True)
    file.symlink_to(weights)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    return home


@pytest.fixture(scope="session")
def output(ray_session: None, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves behind for the two portraits; not to be changed."""
    from segface_batch import Job, annotate

    out = tmp_path_factory.mktemp("output") / "out"
    summary = annotate(Job(str(PORTRAITS), str(out), checkpoint=SMALL, weights=str(weights)))
    assert (summary.images, summary.status, summary.errors) == (2, {"ok": 2}, {})
    assert (summary.skipped, summary.parsed) == ({".md files": 1}, 2)
    return out


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A Ray that stays for all tests that ask for it."""
    from segface_batch.pipeline.cluster import ray_running

    with ray_running():
        yield


@pytest.fixture(scope="session")
def ray_address(ray_session: None) -> str:
    """For RAY_ADDRESS of processes that are to use that Ray."""
    import ray

    return ray.get_runtime_context().gcs_address


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `segface-batch ...` as a user would, in a folder of the test's own."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "segface_batch.cli", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def s3_server() -> Iterator[server_of_tests.S3Server]:
    """An S3 server for all tests that do not kill it."""
    with server_of_tests.running_server() as server:
        yield server


@pytest.fixture
def s3_bucket(s3_server: server_of_tests.S3Server) -> str:
    return s3_server.new_bucket()


@pytest.fixture(scope="session")
def _s3_proxy(s3_server: server_of_tests.S3Server) -> Iterator[fault_proxy.RunningProxy]:
    with fault_proxy.running_proxy(s3_server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def s3_proxy(_s3_proxy: fault_proxy.RunningProxy) -> fault_proxy.RunningProxy:
    """A proxy before `s3_server`, without faults yet, its counts at zero."""
    _s3_proxy.set_faults([])
    return _s3_proxy
