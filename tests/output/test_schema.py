from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from segface_batch import catalog
from segface_batch.images import masks
from segface_batch.images.confidence import Confidence
from segface_batch.images.crop import Crop
from segface_batch.images.statistics import STATISTICS
from segface_batch.inputs.image import SourceImage
from segface_batch.output import schema as records
from segface_batch.output.face import Face, FetchedImage, Pasted

CARRIED = pa.schema([("age", pa.int64()), ("who", pa.string())])

LAPA = catalog.find("swinb_lapa_512").dataset


def test_carried_columns_stand_between_the_fixed_ones_and_those_per_class() -> None:
    carried = CARRIED
    fixed, classes = [name for name, _, _, _ in records.COLUMNS], LAPA.class_names
    whole = [each.name for each in STATISTICS if each.table == "stats" and not each.per_class]
    wide = [f"{prefix}_{name}" for prefix in ("px", "frac", "conf", "margin") for name in classes]
    stats = records.stats_schema(LAPA, carried)
    assert stats.names == [*fixed, *whole, "age", "who", *wide]
    assert whole[:3] == ["mask_pixels", "face_px", "confidence"]
    assert (stats.field("age"), stats.field("who")) == (carried.field("age"), carried.field("who"))
    assert records.stats_schema(LAPA).names == [*fixed, *whole, *wide]
    described = records.describe(LAPA, carried)["columns"]
    assert described["who"] == {"table": "stats", "meaning": "carried from the inputs"}


def test_a_staged_table_is_its_three_tables_side_by_side() -> None:
    staged = records.staged_schema(LAPA, CARRIED)
    tables = records.split(staged.empty_table(), LAPA.class_names)
    assert list(tables) == list(records.TABLES) == ["masks", "shapes", "stats"]
    assert tables["masks"].schema == records.masks_schema()
    assert tables["shapes"].schema == records.shapes_schema(LAPA)
    assert tables["stats"].schema == records.stats_schema(LAPA, CARRIED)
    assert records.joined(list(tables.values()), staged).schema == staged


@pytest.mark.parametrize(
    "name", ["uri", "STATUS", "mask", "margin", "landmarks", "face_px", "px_nose", "X_Nose", "margin_left", "_place"]
)
def test_a_name_of_the_outputs_own_cannot_be_carried(name: str) -> None:
    with pytest.raises(ValueError, match=rf"\Acolumn '{name}' cannot be carried, .*; rename it in the input\Z"):
        records.check_carried(["age", name], LAPA)


def test_a_name_of_another_class_table_can_be_carried() -> None:
    records.check_carried(["px_eye_g", "x_position", "left"], LAPA)


def test_a_column_is_carried_once() -> None:
    records.check_carried(["age", "who"], LAPA)
    with pytest.raises(ValueError, match=r"\Acolumn 'age' is asked for twice; name it once\Z"):
        records.check_carried(["age", "who", "age"], LAPA)


def test_a_row_says_where_its_image_and_its_face_are() -> None:
    image = FetchedImage(3, 5, SourceImage("a.png", "/in/a.png"), {"age": 7})
    box, transform = (1.0, 2.0, 30.0, 40.0), np.array([[4.0, 0.5, 6.0], [0.25, 3.0, 7.0]])
    crop = Crop(np.zeros((2, 2, 3), np.uint8), None, box, transform, 0.5, np.arange(10.0).reshape(5, 2))
    face = Face(image, (64, 48), 2, 1, crop, np.ones((2, 2), np.uint8))
    carried = pa.schema([("age", pa.int64())])
    (row,) = records.to_table([records.row(face, LAPA)], LAPA, carried).to_pylist()
    assert np.array_equal(masks.decode(row.pop("mask")["bytes"]), np.ones((2, 2)))
    assert {name: row[name] for name, *_ in records.COLUMNS} == {
        "image_id": "a.png", "uri": "/in/a.png", "unit": 3, "seq": 5, "face": 1, "n_faces": 2, "status": "ok",
        "error": None, "width": 64, "height": 48, "box_left": 1.0, "box_top": 2.0, "box_right": 30.0,
        "box_bottom": 40.0, "score": 0.5, "points": [*range(10)], "transform": [4.0, 0.5, 6.0, 0.25, 3.0, 7.0],
    }  # fmt: skip
    assert (row["age"], row["mask_pixels"], row["px_face_lr_rr"], row["px_background"]) == (7, 4, 4, 0)


def test_the_row_of_a_pasted_mask_has_its_place_and_no_pixel_beyond_the_crop() -> None:
    image = FetchedImage(3, 5, SourceImage("a.png", "/in/a.png"), {})
    crop = Crop(np.zeros((2, 2, 3), np.uint8), None, (0.0, 0.0, 64.0, 48.0))
    shift = np.array([[1.0, 0.0, 8.0], [0.0, 1.0, 9.0]])
    pasted = Pasted(np.array([[1, 2], [masks.OUTSIDE, 1]], np.uint8), np.full((2, 2), 7, np.uint8), shift)
    face = Face(image, (64, 48), 1, 0, crop, np.zeros((2, 2), np.uint8), pasted=pasted)
    (row,) = records.to_table([records.row(face, LAPA)], LAPA).to_pylist()
    assert np.array_equal(masks.decode(row["mask"]["bytes"]), [[1, 2], [0, 1]])
    assert np.array_equal(masks.decode(row["margin"]["bytes"]), [[7, 7], [7, 7]])
    assert row["transform"] == shift.ravel().tolist()
    assert (row["mask_pixels"], row["px_face_lr_rr"], row["px_background"], row["components_face_lr_rr"]) == (
        3,
        2,
        0,
        1,
    )


def test_a_row_without_a_face_says_why() -> None:
    image = FetchedImage(3, 5, SourceImage("a.png", "/in/a.png"), {})
    faces = [Face(image, error="empty"), Face(image, (64, 48)), Face(image, (64, 48), 2, 1, error="bad_box")]
    table = records.to_table([records.row(face, LAPA) for face in faces], LAPA)
    assert table.select(["face", "n_faces", "status", "error", "width", "box_left", "mask"]).to_pylist() == [
        dict(zip(("face", "n_faces", "status", "error", "width", "box_left", "mask"), values, strict=True))
        for values in (
            (0, 0, "error", "empty", None, None, None),
            (0, 0, "no_face", None, 64, None, None),
            (1, 2, "error", "bad_box", 64, None, None),
        )
    ]


def test_a_mask_without_its_image_has_no_light_and_its_other_measures() -> None:
    image = FetchedImage(0, 0, SourceImage("a.png", "/a.png"), {})
    crop = Crop(np.empty((0, 0, 3), np.uint8), None, (0.0, 0.0, 3.0, 2.0))
    row = records.row(Face(image, (3, 2), 1, 0, crop, np.ones((2, 3), np.uint8)), LAPA)
    assert (row["status"], row["skin_light"], row["sharpness"], row["face_px"]) == ("ok", None, None, 6)


def test_the_confidence_of_a_ready_crop_is_in_its_row_with_its_map() -> None:
    image = FetchedImage(0, 0, SourceImage("a.png", "/a.png"), {})
    crop = Crop(np.zeros((2, 3, 3), np.uint8), None, (0.0, 0.0, 3.0, 2.0))
    best, margins = np.full(11, 0.5), np.arange(6, dtype=np.uint8).reshape(2, 3)
    face = Face(image, (3, 2), 1, 0, crop, np.ones((2, 3), np.uint8), Confidence(best, best / 2, 0.5, 3, 0.1, margins))
    (row,) = records.to_table([records.row(face, LAPA)], LAPA).to_pylist()
    assert np.array_equal(masks.decode(row["margin"]["bytes"]), margins)
    assert (row["confidence"], row["low_px"], row["conf_nose"], row["margin_nose"]) == (0.5, 3, 0.5, 0.25)


def test_every_column_is_described_under_its_own_table() -> None:
    described = records.describe(LAPA, CARRIED)["columns"]
    for table in records.TABLES:
        names = set(records.table_schema(table, LAPA, CARRIED).names)
        told = {name for name, about in described.items() if about["table"] == table}
        listed = {name.replace("<class>", each) for name in told for each in LAPA.class_names}
        assert listed == names - ({*records.SHARED} if table != "stats" else set())
