"""What sync tools, editors and people leave beside the files of an output is no part of it."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from segface_batch.curate.query import query
from segface_batch.inputs.sources import list_images
from segface_batch.output import plan as plans, run as runs, schema
from segface_batch.output.reader import open_output
from segface_batch.output.verify import verify
from tests import drivers
from tests.output import protocol

#: Copies of a part under names that sync tools give them, and one of another output.
STRAYS = (
    "Part-00000.parquet", "_part-00000.parquet", "backup/part-00000.parquet", "part-00000 (conflicted copy).parquet",
    "part-00000 2.parquet", "part-00000(1).parquet", "part-00000.sync-conflict-20260101-120000-ABCDEFG.parquet",
    "part-00009.parquet", "part-0000.parquet", "part-00000.parquet.parquet",
)  # fmt: skip


@pytest.fixture
def out(tmp_path: Path) -> Path:
    drivers.write_images(tmp_path / "in", 20)
    protocol.main(str(tmp_path / "in"), str(tmp_path / "out"), part_rows=8)
    return tmp_path / "out"


def copy_part(out: Path, names: tuple[str, ...]) -> None:
    for folder in schema.TABLES:
        for name in names:
            target = out / folder / name
            target.parent.mkdir(exist_ok=True)
            shutil.copy(out / folder / "part-00000.parquet", target)


def counts(out: Path) -> tuple[int, ...]:
    """Rows by SQL in each table, and faces."""
    rows = [
        query(str(out), f"select count(*) as n from {table}").read_all()["n"][0].as_py()
        for table in reversed(schema.TABLES)
    ]
    return *rows, len(list(open_output(str(out)).faces(columns=())))


def test_only_planned_parts_are_read_and_one_line_says_what_is_left_out(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert counts(out) == (20, 20, 20, 20)
    assert capsys.readouterr() == ("", "")
    copy_part(out, STRAYS)
    assert counts(out) == (20, 20, 20, 20)
    line = (
        f"'{out}/stats' has Parquet files that are no part of the output and are left out: 10, the first is "
        "'Part-00000.parquet'; 'segface-batch verify' names all\n"
    )
    assert capsys.readouterr() == ("", 4 * line)
    assert sorted(verify(str(out)).findings["orphaned"]) == sorted(
        f"{folder}/{name} belongs to no part of the plan; no run needs it"
        for folder in schema.TABLES
        for name in STRAYS
    )


def test_a_copy_of_the_tables_is_read_by_the_names_of_its_parts(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("stats", "shapes", "masks"):
        shutil.copytree(out / folder, tmp_path / "copy" / folder)
    assert counts(tmp_path / "copy") == (20, 20, 20, 20)
    assert capsys.readouterr() == ("", "")
    copy_part(tmp_path / "copy", tuple(name for name in STRAYS if name != "part-00009.parquet"))
    assert counts(tmp_path / "copy") == (20, 20, 20, 20)
    assert capsys.readouterr().err.count("are left out: 9, the first is 'Part-00000.parquet'") == 4


def test_a_damaged_plan_is_no_reason_not_to_read(out: Path) -> None:
    (plan,) = (out / "_segface" / "plan").glob("plan-*")
    plan.write_bytes(plan.read_bytes()[:100])
    assert counts(out) == (20, 20, 20, 20)


def test_copies_of_additions_and_retries_are_not_more_of_them(out: Path, tmp_path: Path) -> None:
    drivers.write_images(tmp_path / "more", 4)
    run = runs.read(str(out))
    assert run is not None
    _, images = list_images([str(tmp_path / "more")], Counter())
    runs.add(str(out), plans.write(runs.plan_folder(str(out)), images, Counter(), 8, first_unit=3, first_part=3))
    runs.begin_retry(str(out), {0: {0: [3]}})
    for folder in ("additions", "retries"):
        shutil.copy(out / f"_segface/{folder}/0001.json", out / f"_segface/{folder}/0001 (conflicted copy).json")
    assert runs.read_plan(str(out), run).images == 24
    retry = runs.find_retry(str(out))
    assert retry is not None
    runs.end_retry(str(out), retry)
    assert runs.find_retry(str(out)) is None
    runs.begin_retry(str(out), {0: {0: [4]}})
    assert sorted(path.name for path in (out / "_segface/retries").glob("0002*")) == ["0002.json"]
    protocol.main(str(tmp_path / "in"), str(out), part_rows=8)
    assert counts(out) == (24, 24, 24, 24)
