"""segface-batch plan: what it says is what a run then does."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segface_batch import annotate, storage
from segface_batch.forecast import prices
from segface_batch.forecast.estimate import Forecast
from segface_batch.forecast.forecast import forecast
from segface_batch.forecast.prices import Prices
from segface_batch.forecast.todo import Todo
from segface_batch.forecast.trial import busy_seconds
from segface_batch.inputs.image import SourceImage
from segface_batch.model.network import Parsed
from segface_batch.output import parts, run as runs
from segface_batch.pipeline.metrics import Span
from tests import drivers
from tests.stand_in import Quick


class Broken(Quick):
    """Fails on every batch."""

    def parse(self, pixels: np.ndarray, landmarks: np.ndarray | None = None) -> Parsed:
        raise ZeroDivisionError("on purpose")


def test_what_is_planned_is_what_the_run_then_does(ray_session: None, tmp_path: Path) -> None:
    drivers.write_images(tmp_path / "in")
    (tmp_path / "in" / "broken.png").write_bytes(b"no image")
    job = drivers.job(tmp_path / "in", tmp_path / "out")
    found = forecast(job, sample=40, prices=Prices(vcpu_hour=3600.0))
    assert isinstance(found, Forecast)
    assert not (tmp_path / "out").exists()
    assert (found.planned, found.done, found.listed_all) == (61, 0, True)
    assert found.tried["images"] >= 40
    assert 0.9 < found.tried["faces_per_image"] <= 1
    assert found.bottleneck in found.stages
    assert list(found.stages) == ["fetch", "decode", "network", "encode", "stage"]
    assert all(stage.ms_per_image > 0 and 0 < stage.busy < 1.2 for stage in found.stages.values())
    assert found.rest.price == pytest.approx(found.rest.vcpu_seconds)
    assert found.rest.read_bytes == sum(path.stat().st_size for path in (tmp_path / "in").iterdir())
    # Eight units in three parts: a GET per image and per unit, a PUT per unit and four per part.
    assert (found.rest.get_requests, found.rest.put_requests) == (61 + 8, 8 + 12)
    assert found.rate < found.tried["images"] / found.tried["seconds"]  # Ray takes its share
    assert found.million.wall_seconds == pytest.approx(1e6 / found.rate)
    annotate(job)
    written = sum(len(content) for content in drivers.parts(tmp_path / "out").values())
    assert found.rest.written_bytes == pytest.approx(written, rel=0.15)
    assert forecast(job) is None  # all is done


@pytest.mark.slow
def test_only_what_is_left_is_planned(ray_session: None, tmp_path: Path) -> None:
    drivers.write_images(tmp_path / "in")
    job = drivers.job(tmp_path / "in", tmp_path / "out")
    annotate(job)
    out = storage.absolute(job.output)
    run = runs.read(out)
    assert run is not None
    last = runs.read_plan(out, run).parts[-1]
    (tmp_path / "out" / "stats" / f"{last.name}.parquet").unlink()
    found = forecast(job)
    assert found is not None
    assert (found.planned, found.done, found.rest.images) == (60, 48, 12)
    assert parts.list_published(out) == {"part-00000", "part-00001"}
    with pytest.raises(ValueError, match="was made with max_pixels 80000000, not 1000"):
        forecast(drivers.job(tmp_path / "in", tmp_path / "out", max_pixels=1000))


def test_what_would_end_a_run_ends_a_plan(ray_session: None, tmp_path: Path) -> None:
    drivers.write_images(tmp_path / "in", 8)
    with pytest.raises(RuntimeError, match="the network failed: ZeroDivisionError: on purpose"):
        forecast(drivers.job(tmp_path / "in", tmp_path / "out", network="tests.forecast.test_forecast:Broken"))


def test_units_are_kept_evenly_however_many_there_are() -> None:
    todo = Todo()
    for number in range(10_000):
        todo.add(1, lambda number=number: [SourceImage(str(number), "")])
    kept = [int(images[0].image_id) for _, images in todo.spread(100)]
    assert (todo.units, todo.images, len(kept), kept[0]) == (10_000, 10_000, 100, 0)
    gaps = [after - before for before, after in itertools.pairwise(kept)]
    assert max(gaps) <= 2 * min(gaps)
    assert kept[-1] > 9_800


def test_a_stage_is_busy_while_any_thread_is_in_it() -> None:
    assert busy_seconds([Span(3, 4, 0), Span(0, 2, 0), Span(1, 2.5, 0), Span(1, 1.5, 0)]) == 3.5


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("a.toml", "vcpu_hour = 0.04\ngpu_hour = 2", Prices(vcpu_hour=0.04, gpu_hour=2)),
        ("a.json", '{"put_1000": 0.005}', Prices(put_1000=0.005)),
    ],
)
def test_prices_are_read(tmp_path: Path, name: str, text: str, read: Prices) -> None:
    (tmp_path / name).write_text(text)
    assert prices.read(str(tmp_path / name)) == read


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("a.toml", "vcpu = 1", "unknown price 'vcpu'; choose from vcpu_hour, gpu_hour, gb_month, get_1000, put_1000"),
        ("a.toml", "gpu_hour = -1", "gpu_hour = -1; give a number from 0 up"),
        ("a.toml", "gpu_hour = inf", "gpu_hour = inf; give a number from 0 up"),
        ("a.toml", "gpu_hour = true", "gpu_hour = True; give a number from 0 up"),
        ("a.json", "[]", "holds no names with prices"),
        ("a.json", "{", "is neither TOML nor JSON"),
    ],
)
def test_wrong_prices_are_refused_in_one_line(tmp_path: Path, name: str, text: str, answer: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=answer.replace("[", r"\[")) as refused:
        prices.read(str(tmp_path / name))
    assert "\n" not in str(refused.value)


def test_a_price_is_of_all_that_is_used() -> None:
    use = {"vcpu_seconds": 7200, "gpu_seconds": 3600, "written_bytes": 2e9, "get_requests": 3000, "put_requests": 500}
    assert Prices(1, 10, 100, 1000, 10000).of(use) == 2 + 10 + 200 + 3000 + 5000


@pytest.mark.slow
def test_the_command_prints_a_table_or_json(command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path):
    drivers.write_images(tmp_path / "in", 16)
    words = ["--checkpoint", drivers.CHECKPOINT, "--sample", "8"]
    done = command("plan", "in", *words, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout, parse_constant=pytest.fail)["planned"] == 16
    done = command("plan", "in", "out", *words)
    assert done.returncode == 0, done.stderr
    assert "<- the bottleneck" in done.stdout
    assert not (tmp_path / "out").exists()
