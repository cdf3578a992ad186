"""The output is plain Parquet: four readers open it without this package and agree."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segface_batch.catalog import LAPA
from tests.curate import small_output

#: image_id, face, status, error, width, score, px_hair, frac_hair, in plan order.
COLUMNS = ("image_id", "face", "status", "error", "width", "score", "px_hair", "frac_hair")
ROWS = [
    ("a/one.png", 0, "ok", None, 64, None, 16, 0.25),
    ("broken.png", 0, "error", "truncated", None, None, None, None),
    ("two.png", 0, "ok", None, 64, 0.5, 16, 0.25),
]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Two parts; in the second no error, in the first no score, so that a type guessed from data would differ."""
    one = small_output.row("a/one.png", "one.png", 0, small_output.FACE)
    small_output.write_part(tmp_path, 0, [one, small_output.row("broken.png", "broken.png", 1)])
    small_output.write_part(
        tmp_path, 1, [small_output.row("two.png", "two.png", 0, small_output.FACE, unit=1, score=0.5)]
    )
    return tmp_path


def test_duckdb_reads_it(out: Path) -> None:
    with duckdb.connect() as connection:
        stats = f"read_parquet('{out}/stats/*.parquet')"
        assert connection.sql(f"select {', '.join(COLUMNS)} from {stats} order by unit, seq").fetchall() == ROWS
        types = dict(connection.sql(f"select column_name, column_type from (describe from {stats})").fetchall())
        assert {name: types[name] for name in COLUMNS} == {
            "image_id": "VARCHAR", "face": "SMALLINT", "status": "VARCHAR", "error": "VARCHAR", "width": "INTEGER",
            "score": "FLOAT", "px_hair": "INTEGER", "frac_hair": "FLOAT",
        }  # fmt: skip
        masks = f"read_parquet('{out}/masks/*.parquet')"
        found = connection.sql(f"select image_id, mask.bytes[2:4]::text from {masks} order by unit, seq").fetchall()
        assert found == [("a/one.png", "PNG"), ("broken.png", None), ("two.png", "PNG")]
        sql = f"select value from parquet_kv_metadata('{out}/stats/part-00000.parquet') where key = 'segface_batch'"
        (value,) = connection.sql(sql).fetchall()[0]
        assert _class_names(value) == list(LAPA.class_names)


def test_polars_reads_it(out: Path) -> None:
    stats = pl.read_parquet(out / "stats" / "*.parquet").select(COLUMNS)
    assert stats.rows() == ROWS
    assert stats.dtypes == [
        pl.String, pl.Int16, pl.String, pl.String, pl.Int32, pl.Float32, pl.Int32, pl.Float32,
    ]  # fmt: skip
    masks = pl.read_parquet(out / "masks" / "*.parquet")
    assert masks.schema["mask"] == pl.Struct({"bytes": pl.Binary, "path": pl.String})
    assert [value and value[1:4] for value in masks["mask"].struct.field("bytes")] == [b"PNG", None, b"PNG"]
    metadata = pl.read_parquet_metadata(out / "stats" / "part-00000.parquet")
    assert _class_names(metadata["segface_batch"]) == list(LAPA.class_names)


def test_pandas_reads_it(out: Path) -> None:
    stats = pd.read_parquet(out / "stats", columns=list(COLUMNS), dtype_backend="pyarrow")
    assert [tuple(None if pd.isna(cell) else cell for cell in row) for row in stats.itertuples(index=False)] == ROWS
    assert [str(kind) for kind in stats.dtypes] == [
        "string[pyarrow]", "int16[pyarrow]", "string[pyarrow]", "string[pyarrow]", "int32[pyarrow]", "float[pyarrow]",
        "int32[pyarrow]", "float[pyarrow]",
    ]  # fmt: skip
    plain = pd.read_parquet(out / "stats")
    assert plain["error"].isna().tolist() == [True, False, True]
    assert plain["px_hair"].isna().tolist() == [False, True, False]
    masks = pd.read_parquet(out / "masks")["mask"]
    assert [value and value["bytes"][1:4] for value in masks] == [b"PNG", None, b"PNG"]


def test_pyarrow_reads_it(out: Path) -> None:
    stats = pq.read_table(out / "stats").select(COLUMNS)
    assert [tuple(row.values()) for row in stats.to_pylist()] == ROWS
    assert stats.schema.types == [
        pa.string(), pa.int16(), pa.string(), pa.string(), pa.int32(), pa.float32(), pa.int32(), pa.float32(),
    ]  # fmt: skip
    for name in ("stats", "shapes", "masks"):
        metadata = pq.read_schema(out / name / "part-00001.parquet").metadata
        assert _class_names(metadata[b"segface_batch"]) == list(LAPA.class_names)


def _class_names(content: str | bytes) -> list[str]:
    return [entry["name"] for entry in json.loads(content)["classes"]]
