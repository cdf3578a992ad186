"""The list of columns of an output."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pyarrow.parquet as pq
import pytest

from segface_batch.curate.columns import columns
from segface_batch.images.statistics import STATISTICS
from segface_batch.output import schema
from tests.curate import small_output


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return small_output.small_output(tmp_path)


def test_every_column_of_every_table_is_listed_once_those_per_class_as_one(out: Path) -> None:
    found = columns(str(out)).to_pylist()
    listed: dict[str, set[str]] = {table: set() for table in schema.TABLES}
    for row in found:
        names = [row["column"].replace("<class>", name) for name in small_output.NAMES]
        listed[row["table"]] |= {*names}
    for table in schema.TABLES:
        there = pq.read_schema(out / table / "part-00000.parquet").names
        assert listed[table] == {*there} - ({*schema.SHARED} if table != "stats" else set())
    assert len({(row["table"], row["column"]) for row in found}) == len(found)


def test_a_column_has_unit_meaning_type_and_an_example(out: Path) -> None:
    found = {row["column"]: row for row in columns(str(out)).to_pylist()}
    assert found["px_<class>"] == {
        "column": "px_<class>", "table": "stats", "type": "int32", "unit": "pixels",
        "example": "px_background = 24", "meaning": "pixels of the class in the mask",
    }  # fmt: skip
    assert found["image_id"]["example"] == "a/one.png"
    assert found["score"] | {"meaning": ""} == {
        "column": "score", "table": "stats", "type": "float", "unit": "", "example": "", "meaning": "",
    }  # fmt: skip
    assert found["head_size"]["meaning"].endswith("(OFIQ HeadSize; ideal 0.45)")
    assert found["mask"]["type"] == "struct<bytes: binary, path: string>"
    assert all(row["meaning"] for row in found.values())
    assert {each.shown for each in STATISTICS} <= found.keys()


def test_the_command_prints_a_table_or_json(
    out: Path, command: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    table = command("columns", out)
    assert (table.returncode, table.stderr) == (0, "")
    assert table.stdout.splitlines()[0].split() == ["column", "table", "type", "unit", "example", "meaning"]
    assert any(line.startswith("px_<class> ") for line in table.stdout.splitlines())
    listed = json.loads(command("columns", out, "--format", "json").stdout)
    assert listed == columns(str(out)).to_pylist()
    nothing = command("columns", tmp_path / "nowhere")
    assert (nothing.returncode, nothing.stdout) == (2, "")
    assert "has no Parquet part yet" in nothing.stderr
