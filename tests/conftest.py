"""What tests share: one Ray, one small checkpoint, one way to call the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from segface_batch.pipeline import ray_running
from tests import filled

#: The smallest published checkpoint: 28 MB of weights.
SMALL = "mobilenet_celeba_512"


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in the published layout for SMALL, its weights filled by rule: real shapes, meaningless masks."""
    return filled.published_file(SMALL, tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A Ray that stays for all tests that ask for it."""
    with ray_running():
        yield


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
