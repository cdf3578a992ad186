"""What `--new` adds to a plan, without a run."""

from __future__ import annotations

from pathlib import Path

from segface_batch.output import plan as plans, run as runs
from segface_batch.output.plan import Plan
from segface_batch.pipeline.planning import plan_new_images, write_plan
from segface_batch.progress import Silence
from tests import drivers


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
