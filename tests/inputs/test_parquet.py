from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segface_batch.inputs import parquet
from segface_batch.inputs.image import Cell
from tests.inputs.archives import IMAGE

TYPES = {
    "struct": IMAGE,
    "struct without path": pa.struct([("bytes", pa.large_binary())]),
    "binary": pa.binary(),
    "large binary": pa.large_binary(),
}


@pytest.mark.parametrize("kind", TYPES.values(), ids=list(TYPES))
def test_the_bytes_of_planned_rows_come_back(tmp_path: Path, kind: pa.DataType) -> None:
    contents = [bytes([row]) * row for row in range(200)]
    is_struct = pa.types.is_struct(kind)
    values: list[Any] = [{"bytes": content, "path": None} if is_struct else content for content in contents]
    values[150] = {"bytes": None} if is_struct else None
    values[151] = None
    place = str(tmp_path / "f.parquet")
    pq.write_table(pa.table({"other": range(200), "image": pa.array(values, kind)}), place, row_group_size=90)
    size = (tmp_path / "f.parquet").stat().st_size
    rows = list(parquet.read_rows(parquet.open_file(place, size), place, size, "image", ["other"]))
    assert [row.values["other"] for row in rows] == list(range(200))
    assert [row.number for row in rows] == list(range(200))
    wanted = [rows[number].cell for number in (90, 91, 130, 150, 151, 179)]
    assert {cell.group for cell in wanted} == {1}
    assert parquet.read(place, wanted) == [contents[90], contents[91], contents[130], None, None, contents[179]]


def test_a_file_with_fewer_rows_than_planned_has_changed(tmp_path: Path) -> None:
    place = str(tmp_path / "f.parquet")
    pq.write_table(pa.table({"image": [b"1", b"2"]}), place)
    size = (tmp_path / "f.parquet").stat().st_size
    for group, row in ((0, 2), (1, 0)):
        with pytest.raises(OSError, match="fewer rows than when it was planned") as caught:
            parquet.read(place, [Cell("image", group, row, size)])
        assert caught.value.errno == errno.ESTALE


def test_a_row_group_that_would_be_read_again_and_again_is_refused() -> None:
    parquet.check_group("f.parquet", 0, 2 * 2**30)
    with pytest.raises(ValueError, match=r"\As3://b/f\.parquet: row group 3 has 2\.1 GB .*=1000 or less\Z"):
        parquet.check_group("s3://b/f.parquet", 3, 2 * 2**30 + 1)


def test_row_groups_are_looked_at_before_an_image_of_theirs_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(tmp_path / "f.parquet")
    pq.write_table(pa.table({"image": [b"1"] * 3}), place, row_group_size=2)
    size = (tmp_path / "f.parquet").stat().st_size
    monkeypatch.setattr(parquet, "MAX_GROUP_BYTES", 0)
    with pytest.raises(ValueError, match=r"/f\.parquet: row group 0 has "):
        next(parquet.read_rows(parquet.open_file(place, size), place, size, "image", []))
