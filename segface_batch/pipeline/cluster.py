"""Ray for the time of a run: the caller's, the cluster named by RAY_ADDRESS, or one started on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from segface_batch import streams


@contextmanager
def ray_running() -> Iterator[None]:
    """RuntimeError, in one line, for whatever goes wrong in Ray."""
    streams.open_missing()  # Ray asks sys.stdout and sys.stderr what they are
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Under `uv run` Ray would repeat that command in every worker.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    import ray
    from ray._private import ray_constants

    # Ray reads that when it is imported, as somebody may have done before.
    if os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] == "0":
        ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False

    if ray.is_initialized():
        with _one_line_errors():
            yield
        return
    local: dict[str, Any] = {}
    if not os.environ.get("RAY_ADDRESS"):
        # Ray stops workers that are idle for a second beyond one per CPU; each new one imports Ray Data again.
        os.environ.setdefault("RAY_num_workers_soft_limit", "64")
        # One CPU more than there are cores, for the tasks that wait for storage.
        # "local": another Ray of this machine is nobody's business.
        local = {"address": "local", "num_cpus": len(os.sched_getaffinity(0)) + 1, "include_dashboard": False}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        with _silent_stderr():
            ray.init(logging_level=logging.ERROR, log_to_driver=False, **local)
    except Exception as error:  # ConnectionError, and a bare Exception where the machine is too busy
        raise RuntimeError(f"Ray did not start: {str(error).partition(chr(10))[0]}; try again") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own handler would end the process with its own exit code
    try:
        import ray.data  # which takes as long as the workers' start

        for name in ("ray", "ray.data"):
            for handler in logging.getLogger(name).handlers:
                handler.setLevel(logging.CRITICAL)
        with _one_line_errors():
            yield
    finally:
        ray.shutdown()


def on_cluster() -> bool:
    """Whether a run here may use other machines than this one."""
    if os.environ.get("RAY_ADDRESS"):
        return True
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized() and len(ray.nodes()) > 1


def warning() -> str | None:
    """What is wrong with the cluster named by RAY_ADDRESS, in one line.

    A driver without a token can connect to such a cluster only that asks for none.
    """
    if not os.environ.get("RAY_ADDRESS") or os.environ.get("RAY_AUTH_MODE", "").lower() == "token":
        return None
    return (
        "this Ray cluster asks for no token, so whoever reaches it can run code on it; start it with "
        "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE on every node and for this command"
    )


def resources() -> dict[str, float]:
    """Nodes, CPUs, GPUs and bytes of object store that Ray has now."""
    import ray

    total = ray.cluster_resources()
    alive = sum(node["Alive"] for node in ray.nodes())
    return {"nodes": alive, **{name: total.get(name, 0.0) for name in ("CPU", "GPU", "object_store_memory")}}


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Ray's errors carry the traceback of the worker as text, whose last line says what happened."""
    import ray.exceptions

    try:
        yield
    except ray.exceptions.RayError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else type(error).__name__
        raise RuntimeError(
            f"a worker failed: {reason} (what is done is kept; the same command goes on from there)"
        ) from error


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Nothing on file descriptor 2: Ray's C++ part announces its log level there, whatever the level."""
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
