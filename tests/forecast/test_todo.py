"""What is left to do, of a new job and of one that a run has begun."""

from __future__ import annotations

from pathlib import Path

import pytest

from segface_batch.forecast import todo as todos
from segface_batch.forecast.todo import Todo, list_todo, read_todo
from segface_batch.output import run as runs
from segface_batch.progress import Silence
from tests import drivers
from tests.output import protocol


def names(todo: Todo) -> list[list[str]]:
    """The images of each unit that could be tried."""
    return [[image.image_id for image in images] for _, images in todo.spread(100)]


def numbered(*numbers: int) -> list[str]:
    return [f"{number:04d}.png" for number in numbers]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("todo") / "in"
    drivers.write_images(folder, 30)
    return folder


def test_all_images_of_a_new_job_are_to_do(source: Path, tmp_path: Path) -> None:
    todo = list_todo(drivers.job(source, tmp_path / "out", part_rows=20), Silence())
    assert (todo.listed_all, todo.planned, todo.images, todo.units, todo.parts) == (True, 30, 30, 5, 2)
    assert todo.n_bytes == sum(path.stat().st_size for path in source.iterdir())
    assert todo.sizes_known
    assert names(todo) == [
        numbered(*range(8)), numbered(*range(8, 16)), numbered(*range(16, 20)), numbered(*range(20, 28)),
        numbered(28, 29),
    ]  # fmt: skip


def test_where_one_size_is_unknown_that_of_all_is(source: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("https://host/a.png\n")
    inputs = (str(tmp_path / "list.txt"), str(source))
    assert not list_todo(drivers.job(inputs, tmp_path / "out"), Silence()).sizes_known


def test_a_long_listing_is_cut_and_says_so(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(todos, "LISTING_SECONDS", -1.0)
    todo = list_todo(drivers.job(source, tmp_path / "out", part_rows=20), Silence())
    assert (todo.listed_all, todo.planned, todo.parts) == (False, 20, 1)
    todo = list_todo(drivers.job(source, tmp_path / "out", part_rows=30), Silence())
    assert (todo.listed_all, todo.planned, todo.parts) == (True, 30, 1)


def test_what_an_earlier_run_has_left_is_to_do(source: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    protocol.main(str(source), out, part_rows=20)
    run, job = runs.read(out), drivers.job(source, out, part_rows=20)
    assert run is not None
    todo = read_todo(job, run, None)
    assert (todo.planned, todo.images, todo.units, todo.parts) == (30, 0, 0, 0)
    (tmp_path / "out" / "stats" / "part-00001.parquet").unlink()
    todo = read_todo(job, run, None)
    assert (todo.planned, todo.images, todo.units, todo.parts, todo.sizes_known) == (30, 10, 2, 1, False)
    assert names(todo) == [numbered(*range(20, 28)), numbered(28, 29)]
    with pytest.raises(ValueError, match="was made with max_pixels 80000000, not 1000; repeat that setting"):
        read_todo(drivers.job(source, out, part_rows=20, max_pixels=1000), run, None)
