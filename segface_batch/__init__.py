"""Annotate face images at scale: SegFace masks and class statistics in Parquet, on Ray Data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segface_batch.job import Job
    from segface_batch.model.face_parser import FaceParser
    from segface_batch.pipeline.driver import annotate
    from segface_batch.pipeline.summary import Summary

__all__ = ["FaceParser", "Job", "Summary", "annotate"]

_HOMES = {
    "FaceParser": "segface_batch.model.face_parser",
    "Job": "segface_batch.job",
    "Summary": "segface_batch.pipeline.summary",
    "annotate": "segface_batch.pipeline.driver",
}


def __getattr__(name: str) -> Any:
    """Load torch, Ray and Arrow when they are asked for, so that the command line answers at once."""
    if name not in _HOMES:
        raise AttributeError(f"module 'segface_batch' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
