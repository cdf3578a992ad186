from __future__ import annotations

from segface_batch.forecast.stages import Stage, bottleneck, pace
from tests.forecast import made


def test_a_stage_is_as_busy_as_the_threads_that_it_has() -> None:
    work = {"fetch": 6.0, "decode": 2.0, "detect": 1.0, "network": 1.5, "encode": 0.5, "stage": 0.1}
    stages = {
        "fetch": Stage(300, 1.0),  # three units at a time
        "decode": Stage(100, 0.5),  # two threads
        "detect": Stage(50, 0.5),
        "network": Stage(75, 0.75),
        "encode": Stage(25, 0.125),
        "stage": Stage(5, 0.05),
    }
    sampled = made.sampled(made.measured(**work), made.measured(**work))
    assert pace(sampled, detects=True) == stages
    del stages["detect"]
    assert pace(sampled, detects=False) == stages


def test_the_bottleneck_is_the_busiest_stage_and_decode_stands_for_detect() -> None:
    stages = {"fetch": Stage(300, 0.3), "decode": Stage(10, 0.8), "network": Stage(20, 0.7)}
    assert bottleneck(stages | {"detect": Stage(9, 0.9)}) == "decode"
    assert bottleneck(stages | {"network": Stage(20, 0.85)}) == "network"
