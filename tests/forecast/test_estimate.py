"""A forecast in numbers that can be followed by hand."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pyarrow as pa
import pytest

from segface_batch import Job
from segface_batch.catalog import CELEBAMASK_HQ
from segface_batch.forecast.estimate import Forecast, estimate
from segface_batch.forecast.prices import Prices
from segface_batch.forecast.todo import Todo
from segface_batch.output import parts, schema
from tests.curate import small_output
from tests.forecast import made


def rows(images: int) -> pa.Table:
    """Two faces an image."""
    found = [
        small_output.row(f"{seq:05d}.png", f"/in/{seq:05d}.png", seq, small_output.FACE, face=face, n_faces=2)
        for seq in range(images)
        for face in range(2)
    ]
    return schema.to_table(found, CELEBAMASK_HQ)


ROWS = rows(20)


def forecast(todo: Todo, *actors: Any, prices: Prices | None = None, **changes: Any) -> Forecast:
    work = {"decode": 0.4, "network": 1.0, "encode": 0.2}
    actors = actors or (made.measured(ROWS, **work), made.measured(ROWS, **work))
    return estimate(Job("s3://b/in", "s3://b/out"), todo, made.sampled(*actors, **changes), 3.0, prices)


def todo(**changes: Any) -> Todo:
    return replace(Todo(planned=500, images=400, units=50, parts=2, n_bytes=4_000_000), **changes)


def test_a_forecast_follows_from_what_was_measured() -> None:
    first = made.measured(ROWS, network=1.0)
    found = forecast(todo(), first, replace(first, memory=2**31), prices=Prices(gpu_hour=3600))
    # Each of four actors does ten images a second, less what Ray takes of four CPUs, and a unit takes 20 ms of a CPU.
    rate = 1 / (1 / (4 * 10 * (1 - 0.17 / 4)) + 0.02 * 50 / 400 / 4)
    # Four workers beside the actors, and twelve that fetch, need two seconds of four CPUs each.
    start = 3 + 5 + 16 * 2 / 4
    # Of fifty units four actors do the last two alone.
    wall = start + 13 / 12.5 * 400 / rate
    # One of two units is a single request; each unit is read once more from staging.
    gets = 400 * (1 / 10 + 1) / 2 + 50
    assert asdict(found.rest) == pytest.approx({
        "images": 400, "wall_seconds": wall, "vcpu_seconds": 4 * wall, "gpu_seconds": 4 * wall, "read_bytes": 4e6,
        "written_bytes": found.rest.written_bytes, "get_requests": gets, "put_requests": 50 + 4 * 2, "price": 4 * wall,
    })  # fmt: skip
    wall, units = 1e6 / rate, 1e6 / 64
    assert asdict(found.million) == pytest.approx({
        "images": 1_000_000, "wall_seconds": wall, "vcpu_seconds": 4 * wall, "gpu_seconds": 4 * wall,
        "read_bytes": 1e10, "written_bytes": found.million.written_bytes, "get_requests": 1e6 * 0.55 + units,
        "put_requests": units + 4 * 1e6 / 16_384, "price": 4 * wall,
    })  # fmt: skip
    assert (found.listed_all, found.planned, found.done) == (True, 500, 100)
    assert (found.rate, found.start_seconds) == (pytest.approx(rate), start)
    assert found.machine == {"cpus": 4, "gpus": 4.0, "actor_memory_bytes": 2**31}
    assert found.tried == {
        "images": 40, "faces_per_image": 2.0, "actors": 2, "seconds": 2.0, "cpu_seconds_per_image": 0.05,
    }  # fmt: skip


def test_without_prices_nothing_has_one() -> None:
    assert (forecast(todo()).rest.price, forecast(todo()).million.price) == (None, None)


def test_written_bytes_are_those_of_all_faces_and_parts() -> None:
    for count in (1, 5):
        written = count * sum(map(len, parts.files(rows(400 // count), schema.describe(CELEBAMASK_HQ)).values()))
        assert forecast(todo(parts=count)).rest.written_bytes == pytest.approx(written, rel=0.1)


def test_bytes_of_images_whose_size_is_unknown_are_those_of_the_sample() -> None:
    assert forecast(todo(sizes_known=False, n_bytes=0)).rest.read_bytes == 400 * 1000


def test_on_cpus_no_gpu_is_paid_and_no_workers_fetch() -> None:
    setup = replace(made.SETUP, gpus=0.0, resources=replace(made.SETUP.resources, num_gpus=0.0))
    found = forecast(todo(), setup=setup)
    assert (found.rest.gpu_seconds, found.start_seconds) == (0.0, 3 + 5 + 4 * 2 / 4)


def test_the_error_of_the_rate_is_that_of_the_units_tried() -> None:
    one = replace(made.measured(ROWS, network=1.0), images=(1, 1), faces=(1, 3))
    # The mean of costs 1 and 3 is known to 1.96 * sqrt(2) / sqrt(2).
    assert forecast(todo(), one).rate_error == pytest.approx(1.96 / 2)
    alike = made.measured(ROWS, network=1.0)
    assert forecast(todo(), alike).rate_error == 0.0
    assert forecast(todo(), replace(alike, images=(1,), faces=(1,), n_bytes=(9,))).rate_error is None
