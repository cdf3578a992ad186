"""What an output is made of: run.json, and what was added to it later.

    OUT/_segface/run.json              which settings made the output, and the first plan
    OUT/_segface/additions/0001.json   a plan of images that were new in the inputs
    OUT/_segface/retries/0001.json     images with errors to try again; 0001.done when they were

All are created once and never changed.  The same command resumes the run; one with other settings is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from segface_batch import storage
from segface_batch.job import Job, recorded
from segface_batch.output import plan as plans, schema
from segface_batch.output.plan import Plan
from segface_batch.storage.redact import redacted

#: Packages that take part in the numbers or the bytes of the output.
PACKAGES = ("segface-batch", "torch", "timm", "openvino", "numpy", "pillow", "pyarrow", "ray")


@dataclass(frozen=True)
class Retry:
    """Images to try again: by index of the part and number of the unit, their seqs."""

    name: str
    images: dict[int, dict[int, list[int]]]


def plan_folder(out: str) -> str:
    return storage.join(out, "_segface", "plan")


def read(out: str) -> dict[str, Any] | None:
    """run.json's content, None where there is none yet."""
    try:
        return json.loads(storage.read(_place(out)))
    except FileNotFoundError:
        return None


def check(out: str, run: Mapping[str, Any], job: Job, weights_sha256: str | None) -> None:
    """ValueError where a setting of the job differs from the run's, or the columns from those of this version."""
    if run["schema_version"] != schema.SCHEMA_VERSION:
        raise ValueError(
            f"'{out}' was made by segface-batch {run['versions']['segface-batch']} with other columns; go on with that "
            "version, or name another output folder"
        )
    for name, value in recorded_settings(job, weights_sha256).items():
        if run["settings"].get(name) != value:
            raise ValueError(
                f"'{out}' was made with {name} {run['settings'].get(name)}, not {value}; "
                "repeat that setting to resume, or name another output folder"
            )
    if run["classes"] != schema.describe(job.model.dataset)["classes"]:
        raise ValueError(f"'{out}' was made with another class table of {job.model.name}; name another output folder")


def start(out: str, job: Job, weights_sha256: str | None, plan: str, carried: pa.Schema) -> dict[str, Any]:
    """Create run.json with the plan that counts and return it, or the one that another driver has created meanwhile."""
    checkpoint = job.model
    run = {
        "settings": recorded_settings(job, weights_sha256),
        "plan": plan,
        "resolution": checkpoint.resolution,
        **schema.describe(checkpoint.dataset, carried),
        "versions": {name: version(name) for name in PACKAGES if name != "openvino" or job.engine == name},
    }
    if storage.put(_place(out), json.dumps(run, indent=1).encode()):
        return run
    other = read(out)
    assert other is not None
    check(out, other, job, weights_sha256)
    return other


def read_plan(out: str, run: Mapping[str, Any]) -> Plan:
    """All that is planned: the first images and those added since."""
    folder = storage.join(out, "_segface", "additions")
    names = _list_numbered(folder, ".json")
    added = [json.loads(storage.read(storage.join(folder, name)))["plan"] for name in names]
    return plans.read(plan_folder(out), [run["plan"], *added])


def add(out: str, plan: str) -> None:
    """Add a plan to the run; of two drivers at once the first one's counts."""
    folder = storage.join(out, "_segface", "additions")
    number = len(_list_numbered(folder, ".json")) + 1
    storage.put(storage.join(folder, f"{number:04d}.json"), json.dumps({"plan": plan}).encode())


def find_retry(out: str) -> Retry | None:
    """The retry of images with errors that was asked for and is not finished, None where there is none."""
    folder = storage.join(out, "_segface", "retries")
    done = {name.removesuffix(".done") for name in _list_numbered(folder, ".done")}
    for name in _list_numbered(folder, ".json"):
        if (name := name.removesuffix(".json")) not in done:
            content = json.loads(storage.read(storage.join(folder, f"{name}.json")))
            images = {int(part): {int(unit): seqs for unit, seqs in units.items()} for part, units in content.items()}
            return Retry(f"retry-{name}", images)
    return None


def begin_retry(out: str, images: dict[int, dict[int, list[int]]]) -> None:
    """Ask for images to be tried again; nothing is written where there are none."""
    if not images:
        return
    folder = storage.join(out, "_segface", "retries")
    number = len(_list_numbered(folder, ".json")) + 1
    storage.put(storage.join(folder, f"{number:04d}.json"), json.dumps(images).encode())


def end_retry(out: str, retry: Retry) -> None:
    storage.put(storage.join(out, "_segface", "retries", f"{retry.name.removeprefix('retry-')}.done"), b"")


def recorded_settings(job: Job, weights_sha256: str | None) -> dict[str, Any]:
    """What changes the rows or their places in the parts."""
    inputs = [redacted(storage.absolute(place)) for place in job.inputs]
    settings = {"inputs": inputs, **recorded(job), "checkpoint": job.model.name, "weights_sha256": weights_sha256}
    del settings["input"]  # as given: relative to some folder, or with a secret in it
    return settings


def _list_numbered(folder: str, suffix: str) -> list[str]:
    """0001.json, 0002.json, ...: not what a sync tool has put beside them."""
    return [name for name in storage.list_names(folder, suffix) if re.fullmatch(r"\d{4,}\.\w+", name)]


def _place(out: str) -> str:
    return storage.join(out, "_segface", "run.json")
