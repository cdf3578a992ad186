from __future__ import annotations

import datetime
import resource
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from segface_batch.inputs.image import Cell, SourceImage
from segface_batch.output import plan
from segface_batch.output.plan import MAX_UNIT_BYTES, Plan


def some(count: int, n_bytes: int = 1) -> list[SourceImage]:
    return [SourceImage(f"{number}.jpg", f"/in/{number}.jpg", [number, 0.5], n_bytes) for number in range(count)]


def member(shard: str, offset: int, n_bytes: int, error: str | None = None) -> SourceImage:
    return SourceImage(f"{shard}/{offset}.jpg", f"{shard}#{offset}.jpg", None, n_bytes, shard, offset, error=error)


def row(file: str, group: int, number: int, n_bytes: int = 1) -> SourceImage:
    cell = Cell("image.bytes", group, number, 1000)
    return SourceImage(f"{file}/{number}", f"{file}#{number}", None, n_bytes, file, cell=cell)


def written(folder: Path, images: list[SourceImage], part_rows: int = 16_384, **skipped: int) -> Plan:
    return plan.read(str(folder), [plan.write(str(folder), images, Counter(skipped), part_rows)])


def sizes(folder: Path, images: list[SourceImage]) -> tuple[int, ...]:
    (planned,) = written(folder, images).parts
    return planned.sizes


def test_every_image_is_planned_once_in_order(tmp_path: Path) -> None:
    made = written(tmp_path, some(50), 20, hidden=2)
    parts = [(planned.index, planned.first_unit, planned.sizes) for planned in made.parts]
    assert parts == [(0, 0, (8, 8, 4)), (1, 3, (8, 8, 4)), (2, 6, (8, 2))]
    assert (made.images, made.skipped) == (50, {"hidden": 2})
    rows = []
    for planned in made.parts:
        for position, unit in enumerate(planned.units):
            found = plan.read_unit(str(tmp_path), planned.file, position)
            assert (found.number, found.seqs) == (unit, tuple(range(len(found.images))))
            rows += [(image.image_id, image.uri, image.landmarks) for image in found.images]
    assert rows == [(image.image_id, image.uri, image.landmarks) for image in some(50)]


def test_a_row_has_all_that_is_needed_to_read_its_image(tmp_path: Path) -> None:
    carried = pa.schema([("day", pa.date32()), ("tags", pa.list_(pa.string()))])
    day = datetime.date(2026, 1, 2)
    images = [
        SourceImage("a", "https://h/a?sig=REDACTED", [1.5, 2.0], 7, "https://h/a?sig=s", carried=(day, ["x"])),
        member("s.tar", 512, 7, "truncated")._replace(carried=(None, [])),
        row("f.parquet", 3, 4)._replace(carried=(None, None)),
    ]
    name = plan.write(str(tmp_path), images, Counter(), 10, carried=carried)
    made = plan.read(str(tmp_path), [name])
    assert made.carried == carried
    rows = plan.read_part(str(tmp_path), made.parts[0].file)
    assert rows.schema.remove_metadata() == plan.schema(carried)
    blank: dict[str, Any] = dict.fromkeys(rows.column_names)
    assert rows.to_pylist() == [
        blank | {"unit": 0, "seq": 0, "image_id": "a", "uri": "https://h/a?sig=REDACTED", "landmarks": [1.5, 2.0]}
        | {"day": day, "tags": ["x"], "_place": "https://h/a?sig=s", "_n_bytes": 7},
        blank | {"unit": 1, "seq": 0, "image_id": "s.tar/512.jpg", "uri": "s.tar#512.jpg", "tags": []}
        | {"_place": "s.tar", "_n_bytes": 7, "_offset": 512, "_error": "truncated"},
        blank | {"unit": 2, "seq": 0, "image_id": "f.parquet/4", "uri": "f.parquet#4", "_place": "f.parquet"}
        | {"_n_bytes": 1, "_column": "image.bytes", "_group": 3, "_row": 4, "_file_bytes": 1000},
    ]  # fmt: skip


def test_a_unit_read_back_is_what_was_planned(tmp_path: Path) -> None:
    carried = pa.schema([("age", pa.int64())])
    images = [image._replace(carried=(number,)) for number, image in enumerate(some(10))]
    members = [
        member("s.tar", 512, 7, "truncated")._replace(carried=(10,)),
        row("f.parquet", 3, 4)._replace(carried=(None,)),
    ]
    made = plan.read(str(tmp_path), [plan.write(str(tmp_path), [*images, *members], Counter(), 20, carried=carried)])
    (planned,) = made.parts
    first, second, third, fourth = (plan.read_unit(str(tmp_path), planned.file, at) for at in range(4))
    some_of_first = plan.read_unit(str(tmp_path), planned.file, 0, [2, 5])
    assert (some_of_first.number, some_of_first.seqs) == (0, (2, 5))
    assert some_of_first.images == (first.images[2], first.images[5])
    assert (second.number, second.seqs, second.carried) == (1, (0, 1), carried)
    assert (*first.images, *second.images, *third.images, *fourth.images) == (*images, *members)


def test_units_stay_small_in_number_and_bytes(tmp_path: Path) -> None:
    assert sizes(tmp_path, some(16_384)) == (64,) * 256
    assert sizes(tmp_path, some(5, MAX_UNIT_BYTES // 2)) == (2, 2, 1)
    assert sizes(tmp_path, some(2, 2 * MAX_UNIT_BYTES)) == (1, 1)


def test_a_unit_of_members_lies_together_in_one_tar_file(tmp_path: Path) -> None:
    shard = [member("a.tar", 512 + 1024 * number, 100) for number in range(10)]
    assert sizes(tmp_path, shard) == (8, 2)
    assert sizes(tmp_path, [*shard[:3], member("b.tar", 5000, 1), *some(3), member("c.tar", 512, 1)]) == (3, 1, 3, 1)
    # The second ends where the unit may end, with what lies between; the third is beyond.
    far = [member("a.tar", 512, 1), member("a.tar", 512 + MAX_UNIT_BYTES - 10, 10), member("a.tar", 2**27, 1)]
    assert sizes(tmp_path, far) == (2, 1)
    further = [member("a.tar", 512, 1), member("a.tar", 512 + MAX_UNIT_BYTES - 9, 10)]
    assert sizes(tmp_path, further) == (1, 1)


def test_a_unit_of_rows_lies_in_one_row_group(tmp_path: Path) -> None:
    assert sizes(tmp_path, [row("a", 0, number) for number in range(600)]) == (256, 256, 88)
    groups = [row("a", group, number) for group in range(2) for number in range(5)]
    assert sizes(tmp_path, [*groups, row("b", 1, 0)]) == (5, 5, 1)
    assert sizes(tmp_path, [row("a", 0, number, MAX_UNIT_BYTES // 3) for number in range(7)]) == (3, 3, 1)


def test_a_later_plan_continues_the_numbers_of_the_earlier(tmp_path: Path) -> None:
    folder = str(tmp_path)
    first = plan.write(folder, some(20), Counter(hidden=1), 10)
    second = plan.write(folder, some(5), Counter(links=2), 10, first_unit=4, first_part=2)
    both = plan.read(folder, [first, second])
    assert [(found.index, found.name, list(found.units)) for found in both.parts] == [
        (0, "part-00000", [0, 1]),
        (1, "part-00001", [2, 3]),
        (2, "part-00002", [4]),
    ]
    assert (both.images, both.skipped) == (25, {"links": 2})
    assert plan.read_unit(folder, both.parts[2].file, 0).number == 4


def test_plans_of_other_columns_are_not_one_run(tmp_path: Path) -> None:
    folder = str(tmp_path)
    names = [
        plan.write(folder, [SourceImage("a", "b", carried=(None,))], Counter(), 10, carried=pa.schema([("n", kind)]))
        for kind in (pa.int64(), pa.string())
    ]
    with pytest.raises(ValueError, match=r"columns were n \(int64\) and are n \(string\) now; make them as they were"):
        plan.read(folder, names)


def test_plans_of_other_images_lie_side_by_side(tmp_path: Path) -> None:
    folder = str(tmp_path)
    first = plan.write(folder, some(50), Counter(), 20)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert plan.write(folder, some(50), Counter(), 20) == first
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert plan.write(folder, some(49), Counter(), 20) != first
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_a_plan_may_lie_on_a_store(tmp_path: Path) -> None:
    folder = f"memory://{tmp_path.name}"
    made = plan.read(folder, [plan.write(folder, some(3), Counter(), 10)])
    assert [image.uri for image in plan.read_unit(folder, made.parts[0].file, 0).images] == [
        f"/in/{n}.jpg" for n in range(3)
    ]


@pytest.mark.slow
def test_a_million_images_are_planned_in_a_minute_and_little_memory(tmp_path: Path) -> None:
    def million() -> Iterator[SourceImage]:
        for number in range(1_000_000):
            name = f"faces/{number // 1000:04d}/{number:07d}.jpg"
            yield SourceImage(name, f"s3://bucket/corpus/{name}", None, 80_000)

    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.process_time()
    made = plan.read(str(tmp_path), [plan.write(str(tmp_path), million(), Counter(), 16_384)])
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert made.images == 1_000_000
    assert time.process_time() - started < 60
    assert (after.ru_maxrss - before.ru_maxrss) / 2**10 < 300
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 20e6


def test_units_grow_with_the_plan() -> None:
    """The driver's time goes by units; of an input of unknown sizes a unit's bytes must stay few."""
    many = some(2048, 1000)

    def largest(planned: int, images: list[SourceImage]) -> int:
        ((_, sizes),) = plan.in_units(images, 16_384, planned)
        return max(sizes)

    assert [largest(before, many) for before in (0, 2**20 - 1, 2**20, 2**21, 2**24, 2**24 + 2**20, 2**30)] == [
        32, 32, 64, 128, 1024, 1024, 1024,
    ]  # fmt: skip
    assert largest(2**24, [image._replace(n_bytes=0) for image in many]) == 32
    assert largest(2**24, [*many[1:], many[0]._replace(n_bytes=0)]) == 32
    assert largest(2**24, [image._replace(n_bytes=2**20) for image in many]) == 64


def test_units_grow_with_the_parts_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SMALL_PLAN", 2048)
    sizes = [max(sizes) for _, sizes in plan.in_units(some(4 * 1024), 1024)]
    assert sizes == [16, 16, 64, 96]
