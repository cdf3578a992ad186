"""Ray for the time of a run: the caller's, the cluster named by RAY_ADDRESS, or one started on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segface_batch import streams
from segface_batch.pipeline.last_word import last_word
from segface_batch.storage.redact import redacted_text

#: Seconds in which somebody must listen at RAY_ADDRESS, and in which Ray must have started.
ANSWER_SECONDS, CONNECT_SECONDS = 5.0, 120.0

#: What to do about errors of Ray, by words in them.
_HINTS = {
    "Version mismatch": "install the cluster's versions of Ray and Python here, or run the command on the cluster",
    "AF_UNIX path length": "set RAY_TMPDIR to a folder with a shorter name, like /tmp",
    "Permission denied": "give the user a HOME that it can write to, or set RAY_TMPDIR to such a folder",
    "authentication": "give the cluster's token in RAY_AUTH_TOKEN_PATH=FILE with RAY_AUTH_MODE=token",
    "Could not find any running Ray": "start the cluster, or unset RAY_ADDRESS to run on this machine",
}

_LONGEST_REASON = 500

_RAY_IS_GONE = (
    "segface-batch: the process ended without a message: Ray's head node is gone, memory ran out, or the limit of open "
    "files (ulimit -n) is too low; what is done is kept, and the same command goes on from there"
)


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
    settings: dict[str, Any] = {}  # of a cluster, ray.init reads RAY_ADDRESS itself
    if os.environ.get("RAY_ADDRESS"):
        check_address()
    else:
        settings = local_settings()
    with last_word(_RAY_IS_GONE), _initialized(settings):
        import ray.data  # which takes as long as the workers' start

        for name in ("ray", "ray.data"):
            for handler in logging.getLogger(name).handlers:
                handler.setLevel(logging.CRITICAL)
        with _one_line_errors():
            yield


def local_settings() -> dict[str, Any]:
    """What `ray.init` is called with to start a Ray on this machine."""
    # Ray stops workers that are idle for a second beyond one per CPU; each new one imports Ray Data again.
    os.environ.setdefault("RAY_num_workers_soft_limit", "64")
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"} & os.environ.keys() and not _home_is_writable():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # which Ray else keeps in ~/.ray
    # One CPU more than there are cores, for the tasks that wait for storage.
    # "local": another Ray of this machine is not ours to use.
    return {"address": "local", "num_cpus": cpus() + 1, "include_dashboard": False}


def cpus() -> int:
    """CPU cores that this process may use: by its affinity, and by a container's quota."""
    from ray._private.utils import get_num_cpus  # cgroups v1 and v2; Ray has no public name for it

    return max(1, min(len(os.sched_getaffinity(0)), int(get_num_cpus(override_docker_cpu_warning=True))))


def _home_is_writable() -> bool:
    """Whether Ray can keep its token in ~/.ray."""
    try:
        (Path.home() / ".ray").mkdir(exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: neither HOME nor an entry of the user
        return False
    return os.access(Path.home() / ".ray", os.W_OK | os.X_OK)


def check_address() -> None:
    """RuntimeError, in one line with a hint, where nobody listens at RAY_ADDRESS: Ray would wait for ten minutes."""
    address = os.environ["RAY_ADDRESS"]
    host, colon, port = address.rpartition("://")[2].partition("/")[0].rpartition(":")
    if not colon or not port.isdecimal():
        return  # "auto", or something that Ray itself explains
    ends, reason = time.monotonic() + ANSWER_SECONDS, ""
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
        except (OSError, OverflowError, ValueError) as error:  # ValueError: a name that IDNA does not know
            reason = getattr(error, "strerror", None) or str(error)
        else:
            return
        if time.monotonic() > ends:
            raise RuntimeError(
                f"no Ray answers at RAY_ADDRESS={address} ({reason}); start the cluster, correct the address, or unset "
                "RAY_ADDRESS to run on this machine"
            )
        time.sleep(0.5)


@contextmanager
def _initialized(settings: dict[str, Any]) -> Iterator[None]:
    """`ray.init` in a thread of its own, because the main thread must hear Ctrl-C and SIGTERM while Ray waits for an
    answer; `ray.shutdown` at the end.  The thread stays until then, because the kernel ends Ray's processes with the
    thread that started them.

    RuntimeError, in one line, where Ray does not start.
    """
    import ray

    failed: list[BaseException] = []
    started, ended = threading.Event(), threading.Event()

    def run() -> None:
        try:
            ray.init(logging_level=logging.ERROR, log_to_driver=False, **settings)
        except BaseException as error:  # ConnectionError, SystemExit, and a bare Exception where the machine is busy
            failed.append(error)
        started.set()
        ended.wait()

    threading.Thread(target=run, name="ray.init", daemon=True).start()
    try:
        with _silent_stderr():
            ends = time.monotonic() + CONNECT_SECONDS
            while not started.wait(0.1):  # in pieces, because a signal is heard between two of them
                if time.monotonic() > ends:
                    raise RuntimeError(f"Ray did not start within {CONNECT_SECONDS:.0f} s; see its logs in /tmp/ray")
        if failed:
            raise RuntimeError(f"Ray did not start: {one_line(failed[0])}") from failed[0]
        yield
        ray.shutdown()
    except BaseException:
        if started.is_set() and not failed:  # else Ray still waits, and would wait for its own end too
            ray.shutdown()
        raise
    finally:
        ended.set()


def one_line(error: BaseException) -> str:
    """An error of Ray in one line, with a hint where one is known."""
    text = " ".join(str(error).split()) or type(error).__name__
    hint = next((hint for word, hint in _HINTS.items() if word in text), None)
    return text[:_LONGEST_REASON] + (f"; {hint}" if hint else "")


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
        reason = redacted_text(lines[-1].strip()) if lines else type(error).__name__
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
