"""Class tables by name or from a file, and what every one must be (standard library only)."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from segface_batch.catalog import CELEBAMASK_HQ, COMMON, HELEN, LAPA, PAIRED, Color, Dataset, FaceClass

#: The class tables, by the names that commands take.
CLASS_TABLES = {"celebamask-hq": CELEBAMASK_HQ, "lapa": LAPA, "helen": HELEN}


def class_table(table: str) -> Dataset:
    """A class table by its name in CLASS_TABLES, from a JSON file, or from such a file's text; ValueError or
    FileNotFoundError in one line.

    The JSON is `{"0": "background", "1": "skin", ...}`, as Hugging Face's id2label.json, or a list of names or of
    objects with `name` and maybe `meaning`, `color` and `common`, or a run.json.
    """
    if table in CLASS_TABLES:
        return CLASS_TABLES[table]
    if table.startswith(("{", "[")):
        return _parsed(table, "classes", "the class table")
    path = Path(table)
    if path.suffix != ".json":
        known = ", ".join(CLASS_TABLES)
        raise ValueError(f"unknown class table '{table}'; choose one of {known}, or name a .json file")
    try:
        return _parsed(path.read_bytes(), path.stem, f"'{table}'")
    except FileNotFoundError:
        raise FileNotFoundError(f"no class table '{table}'; check the path") from None


def as_text(table: str) -> str:
    """A class table that `class_table` takes wherever its file is not: its name, or its text."""
    if table in CLASS_TABLES:
        return table
    dataset = class_table(table)
    return json.dumps({"dataset": dataset.name, "classes": [asdict(each) for each in dataset.classes]})


@cache
def _parsed(text: str | bytes, name: str, whose: str) -> Dataset:
    try:
        content = json.loads(text)
        entries = content.get("classes", content) if isinstance(content, dict) else content
        if isinstance(entries, dict):
            entries = [entries[str(index)] for index in range(len(entries))]
        elif isinstance(content, dict):
            name = str(content.get("dataset", name))
        entries = [{"name": entry} if isinstance(entry, str) else entry for entry in entries]
        classes = tuple(_face_class(index, entry) for index, entry in enumerate(entries))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{whose} is no class table ({type(error).__name__}: {error}); give "
            '{"0": "background", "1": "skin"} or a list of names in the order of the ids'
        ) from None
    dataset = Dataset(name, classes, landmarks="")
    check_classes(dataset, whose)
    return dataset


def _face_class(index: int, entry: Mapping[str, Any]) -> FaceClass:
    red, green, blue = entry.get("color") or _color(index)
    name = str(entry["name"])
    return FaceClass(name, str(entry.get("meaning", name)), (red, green, blue), str(entry.get("common", "")))


def _color(index: int) -> Color:
    """A colour for a class that was given none: black, then hues that differ most from those before."""
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.6, 0.9) if index else (0.0, 0.0, 0.0)
    return round(255 * red), round(255 * green), round(255 * blue)


#: A mask has 8 bits for a pixel, and one id is `images.masks.OUTSIDE`.
_MOST_CLASSES = 255


def check_classes(dataset: Dataset, whose: str) -> None:
    """ValueError for a class table that columns cannot be made of."""
    names = [name.lower() for name in dataset.class_names]
    if not 2 <= len(names) <= _MOST_CLASSES or len(set(names)) < len(names):
        raise ValueError(
            f"{whose}: give its class table 2 to {_MOST_CLASSES} classes, whose names differ in more than upper and "
            "lower case"
        )
    for common, ids in dataset.by_common.items():
        most = 1 if common in COMMON else 2 if common in PAIRED else len(ids) if common == "" else 0
        if len(ids) > most:
            raise ValueError(
                f"{whose}: {len(ids)} classes have the common name '{common}'; give each of {', '.join(COMMON)} to one "
                f"class, and {', '.join(PAIRED)} to two"
            )
