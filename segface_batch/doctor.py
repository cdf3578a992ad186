"""Does this machine, and every node of a cluster, have what a run needs?  A line for each check, with the hint.

Permissions are tried, not read: the first image is read, and an object in a scratch folder of the output is created,
read, listed, replaced and removed.
"""

from __future__ import annotations

import contextlib
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

#: Seconds: S3 refuses requests whose clock is off by 15 minutes.
MOST_SKEW = 300

#: Bytes that must be free, and how full a disk may be before Ray spills no more (its local_fs_capacity_threshold).
LEAST_FREE, MOST_FULL = 2**30, 0.95

UNCOMPILED = (
    "they are not compiled, and PYTHONDONTWRITEBYTECODE is set: every worker compiles them again, for seconds; unset "
    "it, or run python -m compileall -q on site-packages"
)

OK, WARNING, FAILED = "ok", "warning", "FAILED"


class Check(NamedTuple):
    state: str
    name: str
    said: str

    def __str__(self) -> str:
        return f"{self.state:<7} {self.name}: {self.said}"


def doctor(job: Job) -> Iterator[Check]:
    """The checks of this machine, and, with RAY_ADDRESS, of the cluster and each of its nodes, as they are done."""
    yield from examine(job)
    if job.device == "cuda" and not os.environ.get("RAY_ADDRESS"):
        yield _cuda()
    if os.environ.get("RAY_ADDRESS"):
        yield from _cluster(job)


def examine(job: Job) -> Iterator[Check]:
    """The checks of the machine that this runs on, but for its GPU."""
    storage.configure(job.storage_options, job.s3_client)
    yield _tried("packages", _packages, "install what 'uv.lock' or the image has")
    if sys.dont_write_bytecode and not _is_compiled("ray"):
        yield Check(WARNING, "packages", UNCOMPILED)
    for place in job.inputs:
        yield from _input(place)
    out = storage.absolute(job.output)
    yield from _output(out)
    if (server := _clock_of(out)) is not None:
        yield _tried("clock", lambda: _clock(server), "set it (NTP); S3 refuses requests from 15 minutes on")
    if (path := storage.local_path(out)) is not None:
        yield _tried("disk of the output", lambda: _disk(Path(path)), "make room")
    # Where Ray keeps its sessions, and spills objects that memory does not hold.
    spill = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    yield _tried("disk for Ray", lambda: _disk(spill, MOST_FULL), "make room, or set RAY_TMPDIR to a larger disk")


def _tried(name: str, check: Callable[[], str], hint: str) -> Check:
    try:
        return Check(OK, name, check())
    except storage.StorageUnavailable as error:  # says the hint itself
        return Check(FAILED, name, _words(error))
    except (OSError, ValueError) as error:
        return Check(FAILED, name, f"{_words(error)}; {hint}")


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return redacted_text(f"{error.filename}: {error.strerror}")
    return redacted_text(str(error).partition("\n")[0])


def _packages() -> str:
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in metadata.requires("segface-batch") or () if "extra ==" not in text]
    found = {each.name: metadata.version(each.name) for each in wanted}
    for each in wanted:
        if not each.specifier.contains(found[each.name], prereleases=True):
            raise ValueError(f"{each.name} is {found[each.name]}, not {each.specifier}")
    return ", ".join(f"{name} {found[name]}" for name in ("ray", "torch", "pyarrow"))


def _is_compiled(package: str) -> bool:
    spec = find_spec(package)
    return spec is None or spec.cached is None or Path(spec.cached).exists()


def _input(place: str) -> Iterator[Check]:
    first: list[sources.SourceImage] = []

    def find() -> str:
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
    yield _tried("input: list", find, f"allow s3:ListBucket below {folder}" if storage.is_url(place) else "fix it")
    if first:
        hint = f"allow s3:GetObject below {folder}" if storage.is_url(first[0].uri) else "fix its permissions"
        yield _tried("input: read", read, hint)


def _output(out: str) -> Iterator[Check]:
    """Every kind of request that a run makes to its output, on an object of its own."""
    scratch = storage.join(out, "_segface", f"doctor-{uuid.uuid4().hex}")
    place, content = storage.join(scratch, "probe"), b"of segface-batch doctor; may be removed"
    made = _missing_folders(scratch)

    def allow(right: str) -> str:
        return f"allow {right} below {out}" if storage.is_url(out) else "fix the permissions of the folder"

    def list_() -> str:
        places = [entry.place for entry in storage.listing(storage.join(out, "_segface"))]
        return f"{len(places):,} objects of earlier runs"

    def write() -> str:
        storage.put(place, content)
        storage.replace(place, content)
        return place

    def read() -> str:
        if storage.read(place) != content:
            raise ValueError(f"{place} is not as it was written")
        return "as written"

    def create() -> str:
        if storage.put(place, b"") or storage.read(place) != content:
            raise ValueError("the store overwrites what it should only create")
        return "an object that exists stays"

    def remove() -> str:
        storage.remove([place])
        return "removed"

    yield _tried("output: list", list_, allow("s3:ListBucket"))
    written = _tried("output: write", write, allow("s3:PutObject"))
    yield written
    if written.state == OK:
        reads = _tried("output: read", read, allow("s3:GetObject"))
        yield reads
        if reads.state == OK:
            yield _tried(
                "output: create only", create, "use a store with conditional PUT, and one run at a time on this"
            )
        yield _tried("output: remove", remove, allow("s3:DeleteObject") + f", and remove {place}")
    for folder in made:
        with contextlib.suppress(OSError):  # a run has begun meanwhile
            os.rmdir(folder)


def _missing_folders(place: str) -> list[Path]:
    """The folders that a local file's folder needs and lacks, the deepest first."""
    path = storage.local_path(place)
    return [] if path is None else [each for each in (Path(path), *Path(path).parents) if not each.exists()]


def _clock_of(out: str) -> str | None:
    """A web server of the output's store."""
    if not out.startswith(("s3://", "s3a://")):
        return None
    from segface_batch.storage import account, options

    with contextlib.suppress(OSError, ValueError):  # of options, which the other checks tell
        found = account.Account(options.given("s3"))
        return found.endpoint or f"https://s3.{found.region or 'us-east-1'}.amazonaws.com"
    return None


def _clock(server: str) -> str:
    try:
        with urlopen(Request(server, method="HEAD"), timeout=5) as answer:
            date = answer.headers["Date"]
    except HTTPError as answer:  # who asks nothing in particular is told so
        date = answer.headers["Date"]
    if date is None:
        return f"{redacted(server)} does not tell its time"
    skew = time.time() - parsedate_to_datetime(date).timestamp()
    if abs(skew) > MOST_SKEW:
        raise ValueError(
            f"this machine's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the store's"
        )
    return f"{abs(skew):.0f} s off that of {redacted(server)}"


def _disk(path: Path, most_full: float = 1.0) -> str:
    while not path.exists():
        path = path.parent
    total, _, free = shutil.disk_usage(path)
    said = f"{free / 2**30:.1f} of {total / 2**30:.1f} GB free at {path}"
    if free < LEAST_FREE or 1 - free / total > most_full:
        raise ValueError(f"only {said}")
    return said


def _cuda() -> Check:
    import torch

    def find() -> str:
        if not torch.cuda.is_available():
            raise ValueError(f"torch {torch.__version__} finds no GPU")
        return torch.cuda.get_device_name()

    return _tried("CUDA", find, "install NVIDIA's driver (in a container its toolkit), or use --device cpu")


def _cluster(job: Job) -> Iterator[Check]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    with ray_running():
        has = resources()
        yield Check(OK, "Ray", f"{has['nodes']:.0f} nodes, {has['CPU']:g} CPUs, {has['GPU']:g} GPUs")
        if (words := warning()) is not None:
            yield Check(WARNING, "Ray", words)
        if job.device == "cuda" and not has["GPU"]:
            yield Check(FAILED, "Ray", "no node has a GPU; start them with --num-gpus, or use --device cpu")
        on_node: Any = ray.remote(num_cpus=0, max_retries=0)(_on_node)
        tasks = {}
        for node in ray.nodes():
            if node["Alive"]:
                here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                gpu = 0.01 if job.device == "cuda" and node["Resources"].get("GPU") else 0
                task = on_node.options(scheduling_strategy=here, num_gpus=gpu).remote(job, bool(gpu))
                tasks[task] = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        for task, name in tasks.items():
            for check in ray.get(task):
                yield check._replace(name=f"{name}, {check.name}")


def _on_node(job: Job, gpu: bool) -> list[Check]:
    return [*examine(job), *([_cuda()] if gpu else [])]
