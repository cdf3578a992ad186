"""Staged rows become parts, and parts new ones after a retry, also of images with several faces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segface_batch import storage
from segface_batch.catalog import LAPA
from segface_batch.output import parts, schema
from segface_batch.output.plan import PlannedPart
from tests.curate import small_output

#: A part of two units of two images.
PART = PlannedPart(0, 0, (2, 2), "part-00000-0.parquet")

RUN = schema.describe(LAPA)

#: The faces of an image: what became of each.
OK, NO_FACE, EMPTY, CRASHED = "ok", "no_face", "empty", "crashed"


def rows(unit: int, seq: int, *faces: str) -> list[dict[str, Any]]:
    """The rows of an image."""
    found = []
    for number, outcome in enumerate(faces):
        values: dict[str, Any] = {"unit": unit, "face": number, "n_faces": len(faces)}
        if outcome == NO_FACE:
            values |= {"status": schema.NO_FACE, "error": None, "n_faces": 0}
        elif outcome != OK:
            values |= {"error": outcome}
        labels = small_output.FACE if outcome == OK else None
        found.append(small_output.row(f"{unit}-{seq}.png", f"/in/{unit}-{seq}.png", seq, labels, **values))
    return found


def stage(out: Path, unit: int, *images: list[dict[str, Any]], retry: str = "") -> None:
    table = schema.to_table([row for image in images for row in image], LAPA)
    parts.stage(parts.Staging(str(out), retry).unit(PART, unit), table)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Everything is staged: of eight faces three failed, two of them not the first of their image."""
    stage(tmp_path, 0, rows(0, 0, OK, EMPTY, CRASHED), rows(0, 1, OK, OK))
    stage(tmp_path, 1, rows(1, 0, EMPTY), rows(1, 1, NO_FACE))
    return tmp_path


def content(out: Path) -> dict[str, bytes]:
    """All files but the records."""
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in out.glob("*/*.parquet")}


def keys(out: Path, name: str) -> list[tuple[int, ...]]:
    table = pq.read_table(out / name / "part-00000.parquet")
    return list(zip(*(table[key].to_pylist() for key in schema.KEY), strict=True))


def record(out: Path) -> dict[str, Any]:
    return json.loads((out / "_segface" / "parts" / "part-00000.json").read_text())


def test_a_published_part_has_every_row_in_both_tables_and_a_record_that_counts_them(out: Path) -> None:
    parts.publish(str(out), PART, RUN)
    expected = [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 1, 0)]
    assert (keys(out, "stats"), keys(out, "masks")) == (expected, expected)
    # An image with a face is ok, whatever its other faces are.
    assert record(out) == {
        "part": "part-00000", "images": 4, "rows": 7, "images_by_status": {"error": 1, "no_face": 1, "ok": 2},
        "status": {"error": 3, "no_face": 1, "ok": 3}, "errors": {"crashed": 1, "empty": 2},
        "files": {name: parts.fingerprint(data) for name, data in sorted(content(out).items())},
    }  # fmt: skip
    assert not (out / "_segface" / "staging" / "part-00000").exists()


def test_an_image_whose_first_face_failed_is_ok_if_another_has_a_mask(tmp_path: Path) -> None:
    found = parts.counts(schema.to_table([*rows(0, 0, EMPTY, OK), *rows(0, 1, EMPTY, CRASHED)], LAPA))
    assert found["images_by_status"] == {"error": 1, "ok": 1}


def test_pngs_are_stored_as_they_are_and_once(tmp_path: Path) -> None:
    """Neither shrunk again nor in a dictionary, which would be all of them a second time."""
    images = [rows(unit, seq, OK) for unit in range(2) for seq in range(2)]
    for (row,) in images:
        row["margin"] = row["mask"]
    stage(tmp_path, 0, *images[:2])
    stage(tmp_path, 1, *images[2:])
    parts.publish(str(tmp_path), PART, RUN)
    group = pq.ParquetFile(tmp_path / "masks" / "part-00000.parquet").metadata.row_group(0)
    columns = {each.path_in_schema: each for each in map(group.column, range(group.num_columns))}
    pngs = ("mask.bytes", "margin.bytes")
    stored = {name: (each.compression, each.has_dictionary_page) for name, each in columns.items()}
    assert {stored[name] for name in pngs} == {("UNCOMPRESSED", False)}
    assert stored["image_id"] == ("ZSTD", True)


def test_what_killed_processes_left_of_any_table_goes_when_a_run_ends(out: Path) -> None:
    plan = parts.Plan((PART,), {})
    parts.publish(str(out), PART, RUN)
    for folder in (*schema.TABLES, "_segface/parts"):
        (out / folder / ".part-00000.0a1b.tmp").touch()
        (out / folder / ".note").touch()  # of somebody else
    parts.finish(str(out), plan)
    assert sorted(path.name for path in out.rglob(".*")) == [".note"] * 4


def test_masks_are_images_for_hugging_face(out: Path) -> None:
    parts.publish(str(out), PART, RUN)
    run = json.dumps(RUN, sort_keys=True).encode()
    assert pq.read_schema(out / "stats" / "part-00000.parquet").metadata == {b"segface_batch": run}
    assert pq.read_schema(out / "masks" / "part-00000.parquet").metadata == {
        b"segface_batch": run,
        b"huggingface": b'{"info": {"features": {"mask": {"_type": "Image"}, "margin": {"_type": "Image"}}}}',
    }


@pytest.mark.parametrize("table", ["masks", "shapes"])
def test_masks_and_shapes_of_an_earlier_publisher_stay_and_the_record_is_of_them(out: Path, table: str) -> None:
    earlier = out / table / "part-00000.parquet"
    storage.put(str(earlier), b"an earlier publisher's")
    parts.publish(str(out), PART, RUN)
    assert earlier.read_bytes() == b"an earlier publisher's"
    assert record(out)["files"][f"{table}/part-00000.parquet"] == parts.fingerprint(b"an earlier publisher's")


@pytest.mark.parametrize("second", [(), (rows(1, 0, OK, OK, OK),)], ids=["no row", "rows of another image"])
def test_a_part_that_lacks_an_image_is_not_published(second: tuple[list[dict[str, Any]]], tmp_path: Path) -> None:
    stage(tmp_path, 0, rows(0, 0, OK), rows(0, 1, OK))
    stage(tmp_path, 1, *second)
    with pytest.raises(ValueError, match=rf"\Apart-00000: {2 + len(second)} images staged, 4 are planned\Z"):
        parts.publish(str(tmp_path), PART, RUN)
    assert content(tmp_path) == {}


def test_a_publisher_that_comes_late_finds_its_part_done(out: Path, tmp_path: Path) -> None:
    parts.publish(str(out), PART, RUN)
    before = content(out), record(out)
    parts.publish(str(out), PART, RUN)
    assert (content(out), record(out)) == before
    with pytest.raises(FileNotFoundError):
        parts.publish(str(tmp_path / "other"), PART, RUN)


def test_a_unit_joined_of_its_images_gives_the_same_bytes(tmp_path: Path) -> None:
    """A page of Parquet has a megabyte: these masks fill several."""
    images = [[rows(unit, seq, OK, OK) for seq in range(2)] for unit in range(2)]
    for number, row in enumerate(row for unit in images for image in unit for row in image):
        row["mask"] = {"bytes": np.random.default_rng(number).bytes(700_000)}
    whole, split = tmp_path / "whole", tmp_path / "split"
    for unit in range(2):
        stage(whole, unit, *images[unit])
    parts.publish(str(whole), PART, RUN)
    staging = parts.Staging(str(split))
    pieces = [staging.image(PART, 0, seq) for seq in range(2)]
    for piece, image in zip(pieces, images[0], strict=True):
        parts.stage(piece, schema.to_table(image, LAPA))
    parts.join(staging.unit(PART, 0), pieces)
    stage(split, 1, *images[1])
    assert staging.names() == {staging.unit(PART, unit) for unit in (0, 1)}
    parts.publish(str(split), PART, RUN)
    assert content(split) == content(whole)


def test_only_units_that_are_not_staged_are_left_to_do(out: Path) -> None:
    plan = parts.Plan((PART, PlannedPart(1, 2, (1,), "part-00001-0.parquet")), {})
    Path(parts.Staging(str(out)).unit(PART, 0)).unlink()
    assert parts.find_unfinished(str(out), plan) == {plan.parts[0]: [0], plan.parts[1]: [2]}


def test_every_image_with_a_failed_face_is_tried_again_once(out: Path) -> None:
    parts.publish(str(out), PART, RUN)
    assert parts.find_error_images(str(out), [PART]) == {0: {0: [0], 1: [0]}}


def test_a_later_retry_does_not_find_the_rows_of_an_earlier(out: Path) -> None:
    parts.publish(str(out), PART, RUN)
    stage(out, 1, rows(1, 0, CRASHED), retry="retry-0001")
    stage(out, 1, rows(1, 0, OK), retry="retry-0002")
    parts.republish(str(out), PART, RUN, "retry-0002", [1])
    assert record(out)["errors"] == {"crashed": 1, "empty": 1}  # of the other unit


def test_a_retried_image_keeps_none_of_its_old_faces(out: Path) -> None:
    parts.publish(str(out), PART, RUN)
    before = pq.read_table(out / "stats" / "part-00000.parquet").to_pylist()
    stage(out, 0, rows(0, 0, OK, OK), retry="retry-0001")
    stage(out, 1, rows(1, 0, OK, OK), retry="retry-0001")
    for _ in range(2):  # the second time after a crash
        parts.republish(str(out), PART, RUN, "retry-0001", [1, 0])
        table = pq.read_table(out / "stats" / "part-00000.parquet")
        blank = dict.fromkeys(table.column_names)
        new = [blank | row for image in (rows(0, 0, OK, OK), rows(1, 0, OK, OK)) for row in image]
        for row in new:
            del row["mask"]
        expected = sorted([*new, *before[3:5], before[6]], key=lambda row: [row[key] for key in schema.KEY])
        assert table.to_pylist() == pa.Table.from_pylist(expected, table.schema).to_pylist()
        assert keys(out, "masks") == keys(out, "stats")
        assert record(out) == {
            "part": "part-00000", "images": 4, "rows": 7, "images_by_status": {"no_face": 1, "ok": 3},
            "status": {"no_face": 1, "ok": 6}, "errors": {},
            "files": {name: parts.fingerprint(data) for name, data in sorted(content(out).items())},
        }  # fmt: skip
    assert parts.find_error_images(str(out), [PART]) == {}
