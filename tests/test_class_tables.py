"""Class tables by name and from files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from segface_batch.catalog import CELEBAMASK_HQ, COMMON, FACE, HELEN, LAPA, PAIRED, Dataset, FaceClass
from segface_batch.class_tables import CLASS_TABLES, check_classes, class_table
from segface_batch.output import schema


def written(folder: Path, content: Any) -> str:
    path = folder / "mine.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_data_sets_are_known_by_name() -> None:
    assert [class_table(name) for name in ("celebamask-hq", "lapa", "helen")] == [CELEBAMASK_HQ, LAPA, HELEN]


def test_every_known_class_has_a_common_name_and_no_two_the_same_but_pairs() -> None:
    for dataset in CLASS_TABLES.values():
        check_classes(dataset, dataset.name)
        assert {each.common for each in dataset.classes} <= {*COMMON, *PAIRED}
        assert [len(dataset.ids(name)) for name in ("brow", "eye")] == [2, 2]
        assert set(FACE) - {"glasses"} <= {each.common for each in dataset.classes}


@pytest.mark.parametrize(
    "content",
    [{"1": "hair", "0": "background"}, ["background", "hair"], [{"name": "background"}, {"name": "hair"}]],
)
def test_a_file_gives_the_names_in_the_order_of_the_ids(tmp_path: Path, content: Any) -> None:
    table = class_table(written(tmp_path, content))
    assert (table.name, table.class_names, table.landmarks) == ("mine", ("background", "hair"), "")
    assert table.classes[0].color == (0, 0, 0) != table.classes[1].color


def test_a_run_json_gives_its_class_table_whole(tmp_path: Path) -> None:
    table = class_table(written(tmp_path, schema.describe(LAPA)))
    assert table.classes == LAPA.classes


def test_classes_may_have_meaning_colour_and_common_name(tmp_path: Path) -> None:
    hair = {"name": "hair", "meaning": "all hair", "color": [1, 2, 3], "common": "hair"}
    table = class_table(written(tmp_path, ["background", hair]))
    assert table.classes[1] == FaceClass("hair", "all hair", (1, 2, 3), "hair")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("no json", "is no class table (JSONDecodeError"),
        ({"0": "background", "2": "hair"}, "is no class table (KeyError: '1')"),
        ([{"meaning": "hair"}], "is no class table (KeyError: 'name')"),
        ([["background"]], "is no class table ("),
        ([{"name": "a", "color": [1, 2]}, "b"], "is no class table (ValueError"),
        (["background"], "give its class table 2 to 255 classes"),
        (["a", "A"], "names differ in more than upper and lower case"),
        ([f"c{number}" for number in range(256)], "give its class table 2 to 255 classes"),
        ([{"name": "a", "common": "skin"}, {"name": "b", "common": "skin"}], "2 classes have the common name 'skin'"),
        ([{"name": "a", "common": "face"}, "b"], "1 classes have the common name 'face'"),
        ([{"name": name, "common": "eye"} for name in "abc"], "3 classes have the common name 'eye'"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, content: Any, reason: str) -> None:
    place = written(tmp_path, content)
    with pytest.raises(ValueError, match=r"\A.+\Z") as caught:
        class_table(place)
    assert str(caught.value).startswith(f"'{place}'")
    assert reason in str(caught.value)


def test_a_table_may_have_255_classes_and_pairs(tmp_path: Path) -> None:
    assert len(class_table(written(tmp_path, [f"c{number}" for number in range(255)])).classes) == 255
    check_classes(Dataset("d", tuple(FaceClass(name, "", (0, 0, 0), "ear") for name in "ab"), ""), "d")


def test_an_unknown_name_or_a_missing_file_has_a_hint(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"\Aunknown class table 'celeba'; choose one of celebamask-hq, lapa, helen, or"
    ):
        class_table("celeba")
    with pytest.raises(FileNotFoundError, match=r"\Ano class table '.*none\.json'; check the path\Z"):
        class_table(str(tmp_path / "none.json"))
