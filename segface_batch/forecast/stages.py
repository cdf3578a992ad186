"""The pace of each stage in a sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from segface_batch.forecast.sample import Sampled
from segface_batch.pipeline.metrics import STAGES


@dataclass(frozen=True)
class Stage:
    """Milliseconds of work per image, and the share of the time, 0 to 1, in which the stage is busy."""

    ms_per_image: float
    busy: float


def pace(sampled: Sampled, detects: bool) -> dict[str, Stage]:
    """Each of metrics.STAGES, `detect` only where the job detects faces."""
    measured, setup = sampled.measured, sampled.setup
    images = sum(sum(one.images) for one in measured)
    seconds = sum(one.seconds for one in measured)
    threads = {"fetch": setup.fetches, "decode": setup.resources.threads, "encode": setup.resources.threads}
    stages = {}
    for stage in STAGES:
        worked = sum(one.work[stage] for one in measured)
        stages[stage] = Stage(1000 * worked / images, worked / (seconds * threads.get(stage, 1)))
    if not detects:
        del stages["detect"]
    return stages


def bottleneck(stages: Mapping[str, Stage]) -> str:
    """The busiest stage; decode stands for detect too, whose work it includes."""
    return max((stage for stage in stages if stage != "detect"), key=lambda stage: stages[stage].busy)
