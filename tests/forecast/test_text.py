from __future__ import annotations

from dataclasses import replace

from segface_batch.forecast.estimate import Forecast, Use
from segface_batch.forecast.proposal import Proposal
from segface_batch.forecast.stages import Stage
from segface_batch.forecast.text import lines

FOUND = Forecast(
    listed_all=True,
    planned=61_000,
    done=1_000,
    machine={"cpus": 8, "gpus": 2.0, "actor_memory_bytes": 3 * 2**29},
    tried={"images": 64, "faces_per_image": 1.25, "actors": 2},
    stages={"decode": Stage(12.34, 0.5), "network": Stage(3.0, 0.97)},
    bottleneck="network",
    rate=123.4,
    rate_error=0.051,
    start_seconds=75.0,
    proposal=Proposal((2, 2), 3, 16, 1.0),
    advice=("--batch-size 16: the network takes 0.80 of the time per face",),
    rest=Use(60_000, 3700.0, 29_600.0, 7400.0, 999.0, 1.5e6, 60_938.0, 0.0, 12.5),
    million=Use(1_000_000, 61_000.0, 488_000.0, 122_000.0, 2e9, 25e12, 1_015_625.0, 15_808.0, 208.4),
)


def test_a_forecast_is_a_page_of_text() -> None:
    assert lines(FOUND) == [
        "61,000 images, 1,000 of them done; 8 CPUs and 2 GPUs",
        "tried: 64 images, 1.25 faces each, in 2 actors side by side, 1.5 GiB each",
        "",
        "stage     ms per image   busy",
        "decode              12.3    50%",
        "network              3.0    97%  <- the bottleneck",
        "",
        "123 images/s +- 5% (95 %, by sampling) after 1 min 15 s of start-up",
        "proposal: --actors 2:2 --threads 3 --batch-size 16 --num-gpus 1",
        "  --batch-size 16: the network takes 0.80 of the time per face; plan again with it",
        "",
        "                           to do     10^6 images",
        "images                    60,000       1,000,000",
        "wall seconds          1 h 01 min     16 h 56 min",
        "vcpu seconds              29,600         488,000",
        "gpu seconds                7,400         122,000",
        "read bytes                 999 B            2 GB",
        "written bytes             1.5 MB           25 TB",
        "get requests              60,938       1,015,625",
        "put requests                   0          15,808",
        "price                      12.50          208.40",
    ]


def test_a_listing_that_was_cut_says_that_more_follow() -> None:
    cut = lines(replace(FOUND, listed_all=False, done=0))
    assert cut[0] == "61,000 images in the first 60 s of listing; more follow; 8 CPUs and 2 GPUs"
    assert cut[11].split() == ["listed", "10^6", "images"]


def test_what_costs_nothing_has_no_line() -> None:
    none = {"gpu_seconds": 0.0, "price": None}
    found = lines(replace(FOUND, rest=replace(FOUND.rest, **none), million=replace(FOUND.million, **none)))
    assert [line.split("  ")[0] for line in found[12:]] == [
        "images", "wall seconds", "vcpu seconds", "read bytes", "written bytes", "get requests", "put requests",
    ]  # fmt: skip
