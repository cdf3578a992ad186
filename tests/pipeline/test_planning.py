"""What is planned when images are added to an input, and what an output may hold before its run, without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from segface_batch import storage
from segface_batch.inputs.image import SourceImage
from segface_batch.job import Job
from segface_batch.output import plan as plans, run as runs
from segface_batch.output.plan import Plan
from segface_batch.pipeline.planning import check_is_empty, plan_new_images, write_plan
from segface_batch.progress import Silence
from tests import drivers


def job(folder: Path) -> Job:
    settings: dict[str, Any] = {"network": "tests.stand_in:Quick", "columns": ("who",), "part_rows": 10}
    return Job(str(folder / "list.csv"), str(folder / "out"), **settings)


def write_images(folder: Path, names: range) -> None:
    """A manifest of these images, each with a column."""
    for number in names:
        (folder / f"{number:02d}.png").write_bytes(b"%d" % number)
    lines = [f"{number:02d}.png,w{number}" for number in names]
    (folder / "list.csv").write_text("\n".join(["uri,who", *lines, ""]))


def started(folder: Path) -> dict[str, object]:
    """The run of what is there."""
    name, carried = write_plan(job(folder), Silence())
    return runs.start(str(folder / "out"), job(folder), None, name, carried)


def planned(folder: Path, run: dict[str, object]) -> list[tuple[int, int, list[str]]]:
    """Of every unit: its part, its number, and its images."""
    out = str(folder / "out")
    return [
        (part.index, unit, [image.image_id for image in read.images])
        for part in runs.read_plan(out, run).parts
        for unit in part.units
        for read in [plans.read_unit(runs.plan_folder(out), part.file, unit - part.first_unit, None)]
    ]


def ids(*numbers: int) -> list[str]:
    return [f"{number:02d}.png" for number in numbers]


def test_new_images_follow_those_that_are_planned_and_nothing_is_planned_twice(tmp_path: Path) -> None:
    write_images(tmp_path, range(1, 13))
    run = started(tmp_path)
    before = planned(tmp_path, run)
    assert before == [(0, 0, ids(*range(1, 9))), (0, 1, ids(9, 10)), (1, 2, ids(11, 12))]
    plan_new_images(job(tmp_path), run, Silence())
    assert planned(tmp_path, run) == before
    write_images(tmp_path, range(15))
    plan_new_images(job(tmp_path), run, Silence())
    after = planned(tmp_path, run)
    assert after == [*before, (2, 3, ids(0, 13, 14))]
    plan_new_images(job(tmp_path), run, Silence())
    assert planned(tmp_path, run) == after
    part = runs.read_plan(str(tmp_path / "out"), run).parts[-1]
    unit = plans.read_unit(runs.plan_folder(str(tmp_path / "out")), part.file, 0, None)
    assert unit.carried == pa.schema([("who", pa.string())])
    assert unit.images[1] == SourceImage("13.png", f"{tmp_path}/13.png", None, 2, carried=("w13",))


def test_images_that_were_added_twice_have_numbers_of_their_own(tmp_path: Path) -> None:
    write_images(tmp_path, range(1))
    run = started(tmp_path)
    for most in (2, 4):
        write_images(tmp_path, range(most))
        plan_new_images(job(tmp_path), run, Silence())
    assert planned(tmp_path, run) == [(0, 0, ids(0)), (1, 1, ids(1)), (2, 2, ids(2, 3))]


def test_a_prefix_with_objects_of_others_is_no_output() -> None:
    for key, refused in (("_segface/run.json", False), ("_segface-old/a", True), ("stats/a.parquet", True)):
        out = f"memory://bucket/{key.replace('/', '-')}"
        storage.put(f"{out}/{key}", b"")
        if refused:
            with pytest.raises(ValueError, match=f"^'{out}' holds other objects \\({out}/{key}\\); name a new prefix"):
                check_is_empty(out)
        else:
            check_is_empty(out)


def test_an_input_without_images_is_named_without_its_signature(tmp_path: Path) -> None:
    found = Job("memory://bucket/none?sig=secret", str(tmp_path / "out"), network="tests.stand_in:Quick")
    with pytest.raises(ValueError, match="no images") as refused:
        write_plan(found, Silence())
    assert str(refused.value) == (
        "no images in 'memory://bucket/none?sig=REDACTED' (nothing else); give the folder or manifest that has them"
    )


def units(plan: Plan, folder: str) -> list[tuple[int, int, list[str]]]:
    """Part, number and image ids of each unit."""
    return [
        (part.index, unit.number, [image.image_id for image in unit.images])
        for part in plan.parts
        for unit in (plans.read_unit(folder, part.file, position) for position in range(len(part.sizes)))
    ]


def test_new_images_come_once_as_parts_and_units_after_all_others(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    job = drivers.job(source, tmp_path / "out", part_rows=9)
    folder = runs.plan_folder(job.output)

    def add(*names: str) -> None:
        for name in names:
            (source / f"{name}.jpg").touch()

    def grown() -> list[tuple[int, int, list[str]]]:
        plan_new_images(job, run, Silence())
        return units(runs.read_plan(job.output, run), folder)

    add(*"abcdefghijk")
    run = {"plan": write_plan(job, Silence())[0]}
    first = [
        (0, 0, [f"{name}.jpg" for name in "abcdefgh"]),
        (0, 1, ["i.jpg"]),
        (1, 2, ["j.jpg", "k.jpg"]),
    ]
    assert grown() == first  # nothing is new
    add("0", "l")
    assert grown() == [*first, (2, 3, ["0.jpg", "l.jpg"])]
    add("m")
    assert grown() == grown() == [*first, (2, 3, ["0.jpg", "l.jpg"]), (3, 4, ["m.jpg"])]


def test_a_manifest_that_is_signed_anew_has_no_new_images(tmp_path: Path) -> None:
    source = tmp_path / "m.txt"

    def sign(word: str, count: int) -> None:
        url = "https://u:{word}@host/{number}.jpg?X-Goog-Signature={word}&Expires={word}"
        source.write_text("".join(url.format(word=word, number=number) + "\n" for number in range(count)))

    sign("first", 3)
    job = drivers.job(source, tmp_path / "out")
    run = {"plan": write_plan(job, Silence())[0]}
    sign("second", 4)
    plan_new_images(job, run, Silence())
    plan = runs.read_plan(job.output, run)
    assert [part.images for part in plan.parts] == [3, 1]
    (image,) = plans.read_unit(runs.plan_folder(job.output), plan.parts[1].file, 0).images
    assert image.uri == "https://host/3.jpg?X-Goog-Signature=REDACTED&Expires=REDACTED"
    assert image.place == "https://u:second@host/3.jpg?X-Goog-Signature=second&Expires=second"
