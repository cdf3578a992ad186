"""The views `faces` and `common`: the same question for every class table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from segface_batch.catalog import CELEBAMASK_HQ, COMMON, HELEN, LAPA, PAIRED, Dataset
from segface_batch.curate.query import query
from segface_batch.images.crop import Crop
from segface_batch.images.statistics import STATISTICS
from segface_batch.inputs.image import SourceImage
from segface_batch.output import parts, schema
from segface_batch.output.face import Face, FetchedImage
from tests.curate import small_output
from tests.images.hand_made import FRONTAL, HandMade

#: A face whose eyes are named the other way round.
SWAPPED = tuple(
    ({"l_eye": "r_eye", "r_eye": "l_eye"}.get(name, name), *box) for name, *box in FRONTAL if name != "l_brow"
)


def output(folder: Path, dataset: Dataset) -> Path:
    """Two faces and an error, in the class table."""
    rows = []
    for seq, rectangles in enumerate((FRONTAL, SWAPPED)):
        labels = HandMade("", rectangles).labels  # pyright: ignore[reportArgumentType]
        theirs = np.zeros_like(labels)
        for label, face_class in enumerate(CELEBAMASK_HQ.classes):
            if found := dataset.ids(face_class.common):
                theirs[labels == label] = found[CELEBAMASK_HQ.ids(face_class.common).index(label)]
        crop = Crop(np.zeros((40, 40, 3), np.uint8), None, (0, 0, 40, 40))
        image = FetchedImage(0, seq, SourceImage(f"{seq}.png", f"/{seq}.png"), {})
        rows.append(schema.row(Face(image, (40, 40), 1, 0, crop, theirs), dataset))
    broken = FetchedImage(0, 2, SourceImage("2.png", "/2.png"), {})
    rows.append(schema.row(Face(broken, error="empty"), dataset))
    run = {"settings": {"max_pixels": 1, "faces": "whole"}, **schema.describe(dataset)}
    for table, content in parts.files(schema.to_table(rows, dataset), run).items():
        (folder / table).mkdir(parents=True)
        (folder / table / "part-00000.parquet").write_bytes(content)
    return folder


@pytest.fixture(params=[CELEBAMASK_HQ, LAPA, HELEN], ids=lambda dataset: dataset.name)
def out(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Dataset]:
    return output(tmp_path / "out", request.param), request.param


def answer(out: Path, sql: str) -> list[dict[str, Any]]:
    return query(str(out), sql).read_all().to_pylist()


def test_faces_has_each_row_of_stats_with_its_shapes(out: tuple[Path, Dataset]) -> None:
    place, dataset = out
    stats, shapes = (pq.read_table(place / table).to_pylist() for table in ("stats", "shapes"))
    expected = [stat | shape for stat, shape in zip(stats, shapes, strict=True)]
    found = answer(place, "select * from faces order by seq")
    assert found == expected
    assert len(found[0]) == len(schema.stats_schema(dataset)) + len(schema.shapes_schema(dataset)) - 4


def test_the_same_question_has_the_same_answer_for_every_class_table(out: tuple[Path, Dataset]) -> None:
    sql = (
        "select px_eye_left, x_eye_left, x_eye_right, px_brow_left, px_brow_right, px_mouth, top_lip_upper, px_hair, "
        "round(eye_dist) as eye_dist from common where status = 'ok' order by seq"
    )
    names = ("px_eye_left", "x_eye_left", "x_eye_right", "px_brow_left", "px_brow_right", "px_mouth", "top_lip_upper",
             "px_hair", "eye_dist")  # fmt: skip
    assert answer(out[0], sql) == [
        dict(zip(names, values, strict=True))
        for values in ((8, 16, 24, 5, 5, 16, 27, 96, 8), (8, 16, 24, 0, 5, 16, 27, 96, 8))
    ]


def test_common_has_every_common_name_and_null_where_a_table_lacks_it(out: tuple[Path, Dataset]) -> None:
    place, dataset = out
    (row, *_) = answer(place, "select * from common order by seq")
    per_class = [each for each in STATISTICS if each.per_class]
    sided = [f"{name}_{side}" for name in PAIRED for side in ("left", "right")]
    assert {f"{each.name}{name}" for each in per_class for name in (*COMMON, *sided)} < row.keys()
    lacks = [name for name in COMMON if not dataset.ids(name)]
    assert lacks == ([] if dataset is CELEBAMASK_HQ else ["glasses", "hat", "earring", "necklace", "neck", "cloth"])
    assert {row[f"{each.name}{name}"] for each in per_class for name in lacks} <= {None}
    assert (row["px_ear_left"] is None) == (dataset is not CELEBAMASK_HQ)
    whole = [each.name for each in STATISTICS if not each.per_class]
    assert {*whole, *(name for name, *_ in schema.COLUMNS)} < row.keys()


def test_an_error_row_is_in_both_views(out: tuple[Path, Dataset]) -> None:
    for view in ("faces", "common"):
        found = answer(out[0], f"select status, eye_dist, left_hair from {view} where seq = 2")
        assert found == [{"status": "error", "eye_dist": None, "left_hair": None}]


def test_a_class_with_a_quote_in_its_name_can_be_asked_for(tmp_path: Path) -> None:
    odd = Dataset("odd", tuple(type(each)(f'a"{n}', "", (0, 0, 0), "") for n, each in enumerate(LAPA.classes)), "")
    out = output(tmp_path / "out", odd)
    assert answer(out, 'select "px_a""0" as px from faces where seq = 0') == [{"px": 1600}]
    assert answer(out, "select px_skin from common where seq = 0") == [{"px_skin": None}]


def test_each_face_of_an_image_is_joined_with_its_own_shapes(tmp_path: Path) -> None:
    rows = [
        small_output.row("two.png", "two.png", 0, small_output.FACE, n_faces=2, components_hair=1),
        small_output.row("two.png", "two.png", 0, small_output.SECOND, n_faces=2, face=1, components_hair=0),
    ]
    small_output.write_part(tmp_path, 0, rows)
    for view in ("faces", "common"):
        found = answer(tmp_path, f"select face, px_hair, components_hair from {view} order by all")
        assert [tuple(row.values()) for row in found] == [(0, 16, 1), (1, 0, 0)]


def test_common_has_the_columns_carried_from_the_inputs(tmp_path: Path) -> None:
    out = output(tmp_path / "out", LAPA)
    place = out / "stats" / "part-00000.parquet"
    stats = pq.read_table(place)
    carried = stats.add_column(0, 'Wei"rd name', [["a", "b", "c"]]).replace_schema_metadata(stats.schema.metadata)
    pq.write_table(carried, place)
    found = answer(out, 'select "Wei""rd name" as carried, px_hair from common order by seq')
    assert [tuple(row.values()) for row in found] == [("a", 96), ("b", 96), ("c", None)]
