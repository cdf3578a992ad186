from __future__ import annotations

from collections import Counter
from pathlib import Path

from segface_batch.inputs import plan
from segface_batch.inputs.plan import MAX_UNIT_BYTES, Plan
from segface_batch.inputs.sources import Picture


def some(count: int, n_bytes: int = 1) -> list[Picture]:
    return [Picture(f"{number}.jpg", f"/in/{number}.jpg", [number, 0.5], n_bytes) for number in range(count)]


def written(folder: Path, pictures: list[Picture], part_rows: int, **skipped: int) -> Plan:
    return plan.read(folder, plan.write(folder, pictures, Counter(skipped), part_rows))


def test_every_picture_is_planned_once_in_order(tmp_path: Path) -> None:
    made = written(tmp_path, some(50), 20, hidden=2)
    ranges = [(planned.index, planned.first_unit, planned.sizes) for planned in made.ranges]
    assert ranges == [(0, 0, (8, 8, 4)), (1, 3, (8, 8, 4)), (2, 6, (8, 2))]
    assert (made.pictures, made.skipped) == (50, {"hidden": 2})
    rows = []
    for planned in made.ranges:
        for position, unit in enumerate(planned.units):
            pictures = plan.read_unit(tmp_path, planned.file, position).to_pylist()
            assert [(row["unit"], row["seq"]) for row in pictures] == [(unit, seq) for seq in range(len(pictures))]
            rows += [(row["image_id"], row["uri"], row["landmarks"]) for row in pictures]
    assert rows == [(picture.image_id, picture.uri, picture.landmarks) for picture in some(50)]


def test_units_stay_small_in_number_and_bytes(tmp_path: Path) -> None:
    assert written(tmp_path, some(20_000), 16_384).ranges[0].sizes == (64,) * 256
    assert written(tmp_path, some(5, MAX_UNIT_BYTES // 2), 16_384).ranges[0].sizes == (2, 2, 1)
    assert written(tmp_path, some(2, 2 * MAX_UNIT_BYTES), 16_384).ranges[0].sizes == (1, 1)


def test_plans_of_other_pictures_lie_side_by_side(tmp_path: Path) -> None:
    first = plan.write(tmp_path, some(50), Counter(), 20)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert plan.write(tmp_path, some(50), Counter(), 20) == first
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert plan.write(tmp_path, some(49), Counter(), 20) != first
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
