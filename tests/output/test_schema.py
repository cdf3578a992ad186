from __future__ import annotations

import pyarrow as pa
import pytest

from segface_batch import catalog
from segface_batch.images.statistics import STATISTICS
from segface_batch.output import schema as records

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
