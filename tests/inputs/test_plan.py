from __future__ import annotations

from collections import Counter
from pathlib import Path

from segface_batch.inputs import plan
from segface_batch.inputs.plan import MAX_UNIT_BYTES, Plan, Range
from segface_batch.inputs.sources import Picture


def some(count: int, n_bytes: int = 1) -> list[Picture]:
    return [Picture(f"{number}.jpg", f"/in/{number}.jpg", [number, 0.5], n_bytes) for number in range(count)]


def test_every_picture_is_planned_once_in_order(tmp_path: Path) -> None:
    written = plan.write(tmp_path, some(50), Counter({"hidden": 2}), part_rows=20)
    assert written == Plan((Range(0, 0, (8, 8, 4)), Range(1, 3, (8, 8, 4)), Range(2, 6, (8, 2))), {"hidden": 2})
    assert written.pictures == 50
    assert plan.read(tmp_path) == written
    rows = []
    for planned in written.ranges:
        for position, unit in enumerate(planned.units):
            pictures = plan.read_unit(tmp_path, planned.index, position).to_pylist()
            assert [(row["unit"], row["seq"]) for row in pictures] == [(unit, seq) for seq in range(len(pictures))]
            rows += [(row["image_id"], row["uri"], row["landmarks"]) for row in pictures]
    assert rows == [(picture.image_id, picture.uri, picture.landmarks) for picture in some(50)]


def test_units_stay_small_in_number_and_bytes(tmp_path: Path) -> None:
    assert plan.write(tmp_path / "many", some(20_000), Counter(), 16_384).ranges[0].sizes == (64,) * 256
    large = plan.write(tmp_path / "large", some(5, MAX_UNIT_BYTES // 2), Counter(), 16_384)
    assert large.ranges == (Range(0, 0, (2, 2, 1)),)
    larger = plan.write(tmp_path / "larger", some(2, 2 * MAX_UNIT_BYTES), Counter(), 16_384)
    assert larger.ranges == (Range(0, 0, (1, 1)),)


def test_a_plan_that_was_not_finished_is_none_and_is_made_again(tmp_path: Path) -> None:
    plan.write(tmp_path, some(50), Counter(), part_rows=20)
    (tmp_path / "plan.json").unlink()
    assert plan.read(tmp_path) is None
    again = plan.write(tmp_path, some(10), Counter(), part_rows=20)
    assert again == plan.read(tmp_path) == Plan((Range(0, 0, (8, 2)),), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plan.json", "range-00000.parquet"]


def test_an_empty_source_has_an_empty_plan(tmp_path: Path) -> None:
    assert plan.write(tmp_path, [], Counter(), 20) == Plan((), {})
