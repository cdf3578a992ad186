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


def start(out: Path, job: Job, weights_sha256: str) -> dict[str, Any]:
    """Create run.json, or check it against the job; its content.  ValueError where a setting differs."""
    checkpoint = catalog.find(job.checkpoint)
    settings = {
        "input": os.path.abspath(job.input),
        "checkpoint": checkpoint.name,
        "weights_sha256": weights_sha256,
        "precision": job.precision,
        "max_pixels": job.max_pixels,
        "part_rows": job.part_rows,
    }
    content = {
        "settings": settings,
        "resolution": checkpoint.resolution,
        **records.describe(checkpoint.dataset),
        "versions": {name: version(name) for name in PACKAGES},
    }
    path = out / "_segface" / "run.json"
    if storage.put(path, json.dumps(content, indent=1).encode()):
        return content
    before = json.loads(storage.read(str(path)))
    for name, value in settings.items():
        if before["settings"][name] != value:
            raise ValueError(
                f"'{out}' was made with {name} {before['settings'][name]}, not {value}; "
                "repeat that setting to resume, or name another output folder"
            )
    return before
