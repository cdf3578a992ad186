"""run.json: which settings made an output.  The same command again resumes it, another one is refused."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

from segface_batch import catalog, storage
from segface_batch.job import Job
from segface_batch.output import records

#: Packages that take part in the numbers or the bytes of the output.
PACKAGES = ("segface-batch", "torch", "timm", "numpy", "pillow", "pyarrow", "ray")


def read(out: Path, job: Job, weights_sha256: str) -> dict[str, Any] | None:
    """run.json's content, None where there is none yet; ValueError where a setting of the job differs."""
    try:
        run = json.loads(storage.read(str(_path(out))))
    except FileNotFoundError:
        return None
    for name, value in _settings(job, weights_sha256).items():
        if run["settings"][name] != value:
            raise ValueError(
                f"'{out}' was made with {name} {run['settings'][name]}, not {value}; "
                "repeat that setting to resume, or name another output folder"
            )
    return run


def start(out: Path, job: Job, weights_sha256: str, plan: str) -> dict[str, Any]:
    """Create run.json with the plan that counts, or give what another driver has created meanwhile."""
    checkpoint = catalog.find(job.checkpoint)
    run = {
        "settings": _settings(job, weights_sha256),
        "plan": plan,
        "resolution": checkpoint.resolution,
        **records.describe(checkpoint.dataset),
        "versions": {name: version(name) for name in PACKAGES},
    }
    if storage.put(_path(out), json.dumps(run, indent=1).encode()):
        return run
    other = read(out, job, weights_sha256)
    assert other is not None
    return other


def _settings(job: Job, weights_sha256: str) -> dict[str, Any]:
    """What changes the rows or their places in the parts."""
    return {
        "input": os.path.abspath(job.input),
        "checkpoint": job.checkpoint,
        "weights_sha256": weights_sha256,
        "precision": job.precision,
        "max_pixels": job.max_pixels,
        "part_rows": job.part_rows,
    }


def _path(out: Path) -> Path:
    return out / "_segface" / "run.json"
