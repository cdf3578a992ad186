"""What verify finds: each kind of damage on a copy of a whole output."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segface_batch.output import run as runs, schema
from segface_batch.output.verify import Report, lines, verify
from tests import drivers
from tests.output import protocol


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    drivers.write_images(folder / "in", 20)
    (folder / "in" / "0003.png").write_bytes(b"")
    protocol.main(str(folder / "in"), str(folder / "out"), part_rows=8)
    return folder / "out"


def put(out: Path, part: int, row: int, **values: Any) -> None:
    """Change values of a row, in both tables where both have the column."""
    for name in schema.TABLES:
        rewrite(
            out / f"{name}/part-{part:05d}.parquet",
            lambda table: pa.Table.from_pylist(
                [
                    old | {key: value for key, value in values.items() if key in old and number == row}
                    for number, old in enumerate(table.to_pylist())
                ],
                table.schema,
            ),
        )


def two_faces(out: Path, first: int, second: int) -> None:
    """The image 0002.png has two rows, with these numbers."""
    double(out)
    for row, face in enumerate((first, second), 2):
        put(out, 0, row, face=face, n_faces=2)


def double(out: Path) -> None:
    for name in schema.TABLES:
        rewrite(out / f"{name}/part-00000.parquet", lambda table: pa.concat_tables([table[:3], table[2:]]))


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


#: What is done to an output -> kind of finding, and words of its line.
DAMAGES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a flipped byte": (
        lambda out: flip(out / "masks/part-00001.parquet"),
        "damaged", "masks/part-00001.parquet is not the file that was written (sha256)",
    ),
    "a flipped byte in shapes": (
        lambda out: flip(out / "shapes/part-00001.parquet"),
        "damaged", "shapes/part-00001.parquet is not the file that was written (sha256)",
    ),
    "no masks": (
        lambda out: (out / "masks/part-00000.parquet").unlink(),
        "damaged", "masks/part-00000.parquet is missing though stats has that part",
    ),
    "no record": (
        lambda out: (out / "_segface/parts/part-00002.json").unlink(),
        "damaged", "_segface/parts/part-00002.json is missing or no record",
    ),
    "a record without its counts of images": (
        lambda out: edit(out / "_segface/parts/part-00002.json", lambda record: record.pop("images_by_status")),
        "damaged", "_segface/parts/part-00002.json is missing or no record",
    ),
    "a record that counts other images": (
        lambda out: edit(out / "_segface/parts/part-00000.json", lambda record: record["images_by_status"].pop("ok")),
        "damaged", "_segface/parts/part-00000.json says images_by_status {'error': 1}, counted are {'error': 1, "
        "'ok': 7}",
    ),
    "a record and a manifest that count other errors": (
        lambda out: [edit(out / "_segface/parts/part-00000.json", lambda record: record.update(errors={})),
                     edit(out / "_segface/manifest.json",
                          lambda manifest: [manifest.update(errors={}), manifest["parts"][0].update(errors={})])],
        "damaged", "_segface/parts/part-00000.json says errors {}, counted are {'empty': 1}",
    ),
    "a manifest that counts other images": (
        lambda out: edit(out / "_segface/manifest.json", lambda manifest: manifest["images_by_status"].update(ok=18)),
        "damaged", "_segface/manifest.json is not that of these parts",
    ),
    "a part removed": (
        lambda out: (out / "stats/part-00001.parquet").unlink(),
        "missing", "part-00001: 8 images, 0 of 1 units are staged",
    ),
    "a row removed": (
        lambda out: [rewrite(out / f"{name}/part-00000.parquet", lambda table: pa.concat_tables([table[:3], table[4:]]))
                     for name in schema.TABLES],
        "missing", "part-00000: no row for 0003.png",
    ),
    "a row doubled": (double, "doubled", "part-00000: 2 rows for 0002.png, 1 expected"),
    "a face lost": (
        lambda out: put(out, 0, 2, n_faces=2), "doubled", "part-00000: 1 rows for 0002.png, 2 expected",
    ),
    "a face twice and another lost": (
        lambda out: two_faces(out, 0, 0), "damaged", "part-00000: faces are not numbered from 0",
    ),
    "faces that begin with 1": (
        lambda out: two_faces(out, 1, 2), "damaged", "part-00000: faces are not numbered from 0",
    ),
    "faces out of order": (
        lambda out: two_faces(out, 1, 0), "damaged", "part-00000: rows are not in the plan's order",
    ),
    "an error without status error": (
        lambda out: put(out, 0, 2, error="empty"),
        "damaged", "part-00000: rows with an error and another status, or the other way round",
    ),
    "a status error without a word": (
        lambda out: put(out, 0, 3, error=None),
        "damaged", "part-00000: rows with an error and another status, or the other way round",
    ),
    "another image under a planned number": (
        lambda out: put(out, 0, 2, image_id="other.png"),
        "damaged", "part-00000: 1 rows have another image_id than the plan",
    ),
    "rows of another part": (
        lambda out: [shutil.copy(out / f"{name}/part-00001.parquet", out / f"{name}/part-00000.parquet")
                     for name in schema.TABLES],
        "orphaned", "part-00000: unit 1, seq 0 is not in the plan",
    ),
    "rows out of order": (
        lambda out: [rewrite(out / f"{name}/part-00000.parquet", lambda table: pa.concat_tables([table[4:], table[:4]]))
                     for name in schema.TABLES],
        "damaged", "part-00000: rows are not in the plan's order",
    ),
    "masks of other images": (
        lambda out: rewrite(out / "masks/part-00000.parquet", lambda table: table[:7]),
        "damaged", "masks/part-00000.parquet has other rows than stats/part-00000.parquet",
    ),
    "shapes of other images": (
        lambda out: rewrite(out / "shapes/part-00000.parquet", lambda table: table[1:]),
        "damaged", "shapes/part-00000.parquet has other rows than stats/part-00000.parquet",
    ),
    "shapes removed": (
        lambda out: (out / "shapes/part-00000.parquet").unlink(),
        "damaged", "shapes/part-00000.parquet is missing though stats has that part",
    ),
    "a foreign part": (
        lambda out: shutil.copy(out / "stats/part-00000.parquet", out / "stats/part-00009.parquet"),
        "orphaned", "stats/part-00009.parquet belongs to no part of the plan; no run needs it",
    ),
    "foreign shapes": (
        lambda out: shutil.copy(out / "shapes/part-00000.parquet", out / "shapes/part-00009.parquet"),
        "orphaned", "shapes/part-00009.parquet belongs to no part of the plan; no run needs it",
    ),
    "a foreign record": (
        lambda out: shutil.copy(out / "_segface/parts/part-00000.json", out / "_segface/parts/part-00009.json"),
        "orphaned", "_segface/parts/part-00009.json belongs to no part of the plan; no run needs it",
    ),
    "a manifest older than the newest part": (
        lambda out: edit(out / "_segface/manifest.json", lambda manifest: manifest.update(images=12)),
        "missing", "_segface/manifest.json is not that of these parts",
    ),
    "a temporary file": (
        lambda out: (out / "stats/.part-00000.parquet.abc.tmp").touch(),
        "orphaned", "stats/.part-00000.parquet.abc.tmp belongs to no part of the plan; no run needs it",
    ),
    "no manifest": (
        lambda out: (out / "_segface/manifest.json").unlink(),
        "missing", "_segface/manifest.json",
    ),
    "a false manifest": (
        lambda out: (out / "_segface/manifest.json").write_text(json.dumps({"images": 20})),
        "damaged", "_segface/manifest.json is not that of these parts",
    ),
    "a damaged plan": (
        lambda out: flip(next((out / "_segface/plan").glob("part-00001-*"))),
        "damaged", "_segface/plan/part-00001-",
    ),
}  # fmt: skip


def test_a_whole_output_has_no_findings(whole: Path) -> None:
    report = verify(str(whole))
    assert (report.complete, report.findings, report.images, report.status) == (True, {}, 20, {"error": 1, "ok": 19})
    assert lines(report, "out") == [
        "3 of 3 parts are published",
        "rows: 1 error, 19 ok",
        "complete: each of 20 images is there exactly once",
    ]


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_found_and_named(what: str, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / what.replace(" ", "-")
    shutil.copytree(whole, out)
    damage, kind, line = DAMAGES[what]
    damage(out)
    report = verify(str(out))
    assert not report.complete
    assert any(found.startswith(line) for found in report.findings[kind]), report.findings
    # The keys alone tell all but a changed byte.
    assert verify(str(out), quick=True).complete == what.startswith("a flipped byte")


def test_an_output_with_errors_that_are_being_tried_again_is_not_complete(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    runs.begin_retry(str(out), {0: {0: [3, 4]}, 2: {2: [0]}})
    again = "3 images with errors are being tried again"
    assert verify(str(out)).findings == {"missing": [again]}
    before = (out / "_segface/manifest.json").read_bytes()
    edit(out / "_segface/manifest.json", lambda manifest: manifest.update(errors={}))  # a part has new rows already
    assert verify(str(out)).findings == {"missing": ["_segface/manifest.json is not that of these parts", again]}
    (out / "_segface/manifest.json").write_bytes(before)
    retry = runs.find_retry(str(out))
    assert retry is not None
    runs.end_retry(str(out), retry)
    assert verify(str(out)).complete


@pytest.mark.parametrize(
    ("kinds", "advice"),
    [
        (["missing"], "not complete: the annotate command that made 'out' goes on with it"),
        (["orphaned"], "remove the orphaned objects, unless a run is working on this output"),
        (["missing", "orphaned"], "remove the orphaned objects, unless a run is working on this output"),
        (["orphaned", "damaged"], "damaged: annotate into a new folder, or restore the named files from a copy"),
        (["doubled"], "damaged: annotate into a new folder, or restore the named files from a copy"),
    ],
)
def test_the_report_says_what_to_do(kinds: list[str], advice: str) -> None:
    report = Report(30, 3, 2, {"ok": 20}, {kind: ["a"] for kind in kinds})
    assert lines(report, "out") == [
        "2 of 3 parts are published", "rows: 20 ok", *(f"{kind}: a" for kind in kinds), advice,
    ]  # fmt: skip


def test_the_report_says_how_many_findings_it_leaves_out() -> None:
    found = {"missing": list("abc"), "damaged": list("abcd")}
    assert lines(Report(30, 3, 2, {}, found), "out", most=3)[1:-1] == [
        "missing: a", "missing: b", "missing: c", "damaged: a", "damaged: b", "damaged: c", "damaged: and 1 more",
    ]  # fmt: skip


@pytest.mark.parametrize("change", [-1, 1])
def test_an_output_of_other_columns_is_refused(change: int, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "old"
    shutil.copytree(whole, out)
    place = out / "_segface" / "run.json"
    run = json.loads(place.read_text())
    place.write_text(json.dumps(run | {"schema_version": run["schema_version"] + change}))
    version = run["versions"]["segface-batch"]
    with pytest.raises(ValueError, match=rf"was made by segface-batch {version} with other columns; verify it with"):
        verify(str(out))


def test_what_is_no_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is no output: it has no _segface/run\.json"):
        verify(str(tmp_path))
