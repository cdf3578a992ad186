"""The Ray that a run starts for itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from segface_batch.pipeline import cluster
from tests import drivers, stand_in

#: Three actors of Ray's own, two parsers, and one that hands out units and publishes; it may have one or two beside it.
WORKERS = 8


def test_a_cluster_that_asks_for_no_token_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert cluster.warning() is None
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert "asks for no token" in (cluster.warning() or "")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert cluster.warning() is None


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
