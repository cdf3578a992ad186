from __future__ import annotations

import pyarrow as pa
import pytest

from segface_batch import catalog
from segface_batch.output import schema as records

LAPA = catalog.find("swinb_lapa_512").dataset


def test_carried_columns_stand_between_the_fixed_ones_and_those_per_class() -> None:
    carried = pa.schema([("age", pa.int64()), ("who", pa.string())])
    fixed, classes = [name for name, _, _, _ in records.COLUMNS], LAPA.class_names
    whole = ["mask_pixels"]
    wide = [f"px_{name}" for name in classes] + [f"frac_{name}" for name in classes]
    stats = records.stats_schema(LAPA, carried)
    assert stats.names == [*fixed, *whole, "age", "who", *wide]
    assert (stats.field("age"), stats.field("who")) == (carried.field("age"), carried.field("who"))
    assert records.staged_schema(LAPA, carried) == stats.append(pa.field("mask", records.MASK))
    assert records.stats_schema(LAPA).names == [*fixed, *whole, *wide]
    described = records.describe(LAPA, carried)["columns"]
    assert list(described) == [*fixed, *whole, "px_<class>", "frac_<class>", "age", "who", "mask"]
    assert described["who"] == "carried from the manifest or Parquet file of the input"


@pytest.mark.parametrize("name", ["uri", "STATUS", "mask", "landmarks", "mask_pixels", "px_skin", "Frac_any", "_place"])
def test_a_name_of_the_outputs_own_cannot_be_carried(name: str) -> None:
    with pytest.raises(ValueError, match=rf"\Acolumn '{name}' cannot be carried, .*; rename it in the input\Z"):
        records.check_carried(["age", name])


def test_a_column_is_carried_once() -> None:
    records.check_carried(["age", "who"])
    with pytest.raises(ValueError, match=r"\Acolumn 'age' is asked for twice; name it once\Z"):
        records.check_carried(["age", "who", "age"])
