"""Checks that this machine, and every node of a cluster, have what a run needs: a line each, with a hint if one fails.

Permissions are tested by using them: the first image is read, and an object in a scratch folder of the output is
created, read, replaced and removed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from segface_batch import storage
from segface_batch.inputs import sources
from segface_batch.job import Job
from segface_batch.pipeline.cluster import ray_running, resources, warning
from segface_batch.storage.redact import redacted, redacted_text

#: Seconds.  S3 refuses requests from clocks that are off by 15 minutes.
MAX_CLOCK_SKEW = 300

#: Bytes that must be free, and how full a disk may be before Ray stops spilling (its local_fs_capacity_threshold).
MIN_FREE, MAX_FULL = 2**30, 0.95

UNCOMPILED = (
    "not compiled, and PYTHONDONTWRITEBYTECODE is set: every worker spends seconds compiling them; unset it, or run "
    "python -m compileall -q on site-packages"
)

OK, WARNING, FAILED = "ok", "warning", "FAILED"

#: Hints for what a place itself refuses.
_HINTS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space there, or name another place"),
    errno.EROFS: "this file system is read-only: name another place",
    **dict.fromkeys((errno.ENAMETOOLONG, errno.EINVAL), "this file system has no such names: name another place"),
}

#: What to do about all other errors of a place.
_OTHER = "check the disk, network or server"


class Check(NamedTuple):
    """The result of a check, as one line; `state` is OK, WARNING or FAILED."""

    state: str
    name: str
    message: str

    def __str__(self) -> str:
        return f"{self.state:<7} {self.name}: {self.message}"


def doctor(job: Job) -> Iterator[Check]:
    """Check this machine and, with RAY_ADDRESS, the cluster and each of its nodes; yields each result at once."""
    yield from check_machine(job)
    if job.device == "cuda" and not os.environ.get("RAY_ADDRESS"):
        yield _check_cuda()
    if os.environ.get("RAY_ADDRESS"):
        yield from _check_cluster(job)


def check_machine(job: Job) -> Iterator[Check]:
    """Check the machine that this runs on, except its GPU."""
    storage.configure(job.storage_options, job.s3_client)
    yield _run_check("packages", _check_packages, "install the versions of 'uv.lock' or of the container image")
    yield from check_bytecode("ray")
    for place in job.inputs:
        yield from _check_input(place)
    out = storage.absolute(job.output)
    yield from _check_output(out)
    if (server := _clock_server(out)) is not None:
        yield _run_check(
            "clock", lambda: check_clock(server), "set it (NTP); S3 refuses clocks that are 15 minutes off"
        )
    if (path := storage.local_path(out)) is not None:
        yield _run_check("disk of the output", lambda: check_disk(Path(path)), "free some space")
    # Ray keeps its sessions there, and the objects that it spills from memory.
    spill = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    hint = "free some space, or set RAY_TMPDIR to a larger disk"
    yield _run_check("disk for Ray", lambda: check_disk(spill, MAX_FULL), hint)


def _run_check(
    name: str, check: Callable[[], str], hint: str, refused: str | None = None, state: str = FAILED
) -> Check:
    """The result of a function that returns a message, or raises an OSError or ValueError: then `state`, and `hint` or,
    for a PermissionError, `refused`."""
    try:
        return Check(OK, name, check())
    except storage.StorageUnavailable as error:  # has a hint of its own
        return Check(FAILED, name, _message_of(error))
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError) and refused is not None:
            hint = refused
        elif isinstance(error, OSError):
            hint = _HINTS.get(error.errno or 0, hint)
        return Check(state, name, f"{_message_of(error)}; {hint}")


def _message_of(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return redacted_text(f"{error.filename}: {error.strerror}")
    return redacted_text(str(error).partition("\n")[0])


def _check_packages() -> str:
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in metadata.requires("segface-batch") or () if "extra ==" not in text]
    found = {each.name: metadata.version(each.name) for each in wanted}
    for each in wanted:
        if not each.specifier.contains(found[each.name], prereleases=True):
            raise ValueError(f"{each.name} is {found[each.name]}, not {each.specifier}")
    return ", ".join(f"{name} {found[name]}" for name in ("ray", "torch", "pyarrow"))


def check_bytecode(package: str) -> Iterator[Check]:
    """A warning if every worker would compile the package again, or nothing."""
    spec = find_spec(package)
    is_compiled = spec is None or spec.cached is None or Path(spec.cached).exists()
    if sys.dont_write_bytecode and not is_compiled:
        yield Check(WARNING, "packages", UNCOMPILED)


def _check_input(place: str) -> Iterator[Check]:
    first: list[sources.SourceImage] = []

    def list_first() -> str:
        _, images = sources.list_images((place,), Counter())
        first.extend(image for image, _ in zip(images, range(1), strict=False))
        if not first:
            raise ValueError(f"no images in {redacted(place)}")
        return f"{redacted(place)} has images"

    def read() -> str:
        span = None
        if first[0].cell is not None:
            span = (0, 4)
        elif first[0].offset is not None:
            span = (first[0].offset, first[0].offset + first[0].n_bytes)
        data = storage.read(first[0].place or first[0].uri, span=span)
        return f"{len(data):,} bytes of {redacted(first[0].uri)}"

    folder = redacted(place)
    refused = f"allow s3:ListBucket below {folder}" if storage.is_url(place) else "fix its permissions"
    yield _run_check("input: list", list_first, "fix the input", refused)
    if first:
        refused = f"allow s3:GetObject below {folder}" if storage.is_url(first[0].uri) else "fix its permissions"
        yield _run_check("input: read", read, _OTHER, refused)


def _check_output(out: str) -> Iterator[Check]:
    """Send every kind of request that a run sends to its output, for a scratch object."""
    scratch = storage.join(out, "_segface", f"doctor-{uuid.uuid4().hex}")
    place, content = storage.join(scratch, "probe"), b"of segface-batch doctor; may be removed"
    made = _missing_folders(scratch)

    def allow(action: str) -> str:
        return f"allow {action} below {out}" if storage.is_url(out) else "fix the permissions of the folder"

    def list_() -> str:
        places = [entry.place for entry in storage.list_objects(storage.join(out, "_segface"))]
        return f"{len(places):,} objects of earlier runs"

    def write() -> str:
        storage.put(place, content)
        storage.replace(place, content)
        return place

    def read() -> str:
        if storage.read(place) != content:
            raise ValueError(f"{place} differs from what was written")
        return "as written"

    def create() -> str:
        if storage.put(place, b"") or storage.read(place) != content:
            raise ValueError("the store overwrites what it was to create only")
        if not storage.creates_only(place):
            raise ValueError("the store has no conditional PUT, so a run first asks whether an object exists")
        return "an existing object stays"

    def remove() -> str:
        storage.remove([place])
        return "removed"

    yield _run_check("output: list", list_, _OTHER, allow("s3:ListBucket"))
    write_check = _run_check("output: write", write, _OTHER, allow("s3:PutObject"))
    yield write_check
    if write_check.state == OK:
        read_check = _run_check("output: read", read, _OTHER, allow("s3:GetObject"))
        yield read_check
        if read_check.state == OK:
            # The results are right there too, because repeated writes have equal bytes.
            hint = "start only one run at a time on this output"
            yield _run_check("output: create only", create, hint, state=WARNING)
        hint = f"remove {place} yourself, and after a run {storage.join(out, '_segface', 'staging')}"
        yield _run_check("output: remove", remove, hint, f"{allow('s3:DeleteObject')}, or {hint}", WARNING)
    for folder in made:
        with contextlib.suppress(OSError):  # a run has started there
            os.rmdir(folder)


def _missing_folders(place: str) -> list[Path]:
    """A local folder and its parents, as far as they do not exist, the deepest first."""
    path = storage.local_path(place)
    return [] if path is None else [each for each in (Path(path), *Path(path).parents) if not each.exists()]


def _clock_server(out: str) -> str | None:
    """The URL of the output's S3 server, whose answers tell its time; None without S3."""
    if not out.startswith(("s3://", "s3a://")):
        return None
    from segface_batch.storage import account, options

    with contextlib.suppress(OSError, ValueError):  # wrong options fail the other checks
        found = account.Account(options.given("s3"))
        return found.endpoint or f"https://s3.{found.region or 'us-east-1'}.amazonaws.com"
    return None


def check_clock(server: str) -> str:
    """Compare this machine's clock with that of a web server.  ValueError for more than MAX_CLOCK_SKEW between them."""
    try:
        with urlopen(Request(server, method="HEAD"), timeout=5) as answer:
            date = answer.headers["Date"]
    except HTTPError as answer:  # an error answer has a date too
        date = answer.headers["Date"]
    if date is None:
        return f"{redacted(server)} does not give its time"
    skew = time.time() - parsedate_to_datetime(date).timestamp()
    if abs(skew) > MAX_CLOCK_SKEW:
        raise ValueError(
            f"this machine's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the store's"
        )
    return f"{abs(skew):.0f} s off from {redacted(server)}"


def check_disk(path: Path, max_full: float = 1.0) -> str:
    """Free space of a disk.  ValueError if it is less than MIN_FREE, or if a share of more than `max_full` is used."""
    while not path.exists():
        path = path.parent
    total, _, free = shutil.disk_usage(path)
    message = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free at {path}"
    if free < MIN_FREE or 1 - free / total > max_full:
        raise ValueError(f"only {message}")
    return message


def _check_cuda() -> Check:
    import torch

    def find_gpu() -> str:
        if not torch.cuda.is_available():
            raise ValueError(f"torch {torch.__version__} finds no GPU")
        return torch.cuda.get_device_name()

    return _run_check("CUDA", find_gpu, "install NVIDIA's driver (in a container its toolkit), or use --device cpu")


def _check_cluster(job: Job) -> Iterator[Check]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    with ray_running():
        has = resources()
        yield Check(OK, "Ray", f"{has['nodes']:.0f} nodes, {has['CPU']:g} CPUs, {has['GPU']:g} GPUs")
        if (message := warning()) is not None:
            yield Check(WARNING, "Ray", message)
        if job.device == "cuda" and not has["GPU"]:
            yield Check(FAILED, "Ray", "no node has a GPU; start them with --num-gpus, or use --device cpu")
        check_node: Any = ray.remote(num_cpus=0, max_retries=0)(_check_node)
        tasks = {}
        for node in ray.nodes():
            if node["Alive"]:
                here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                gpu = 0.01 if job.device == "cuda" and node["Resources"].get("GPU") else 0
                task = check_node.options(scheduling_strategy=here, num_gpus=gpu).remote(job, bool(gpu))
                tasks[task] = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        for task, name in tasks.items():
            for check in ray.get(task):
                yield check._replace(name=f"{name}, {check.name}")


def _check_node(job: Job, gpu: bool) -> list[Check]:
    return [*check_machine(job), *([_check_cuda()] if gpu else [])]
