"""The views that a query sees beside the tables: `faces` and `common`, as SQL.

`faces` is `stats` and `shapes` side by side.  `common` has the same columns for every data set: those of a class by its
common name (`px_skin`, `conf_hair`), of a pair by the side on which it is seen (`px_eye_left`), and null where the data
set has no such class.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from segface_batch.catalog import COMMON, PAIRED, Dataset
from segface_batch.images.statistics import STATISTICS, Statistic
from segface_batch.output import schema

_TYPES = {pa.int32(): "INTEGER", pa.float32(): "FLOAT", pa.uint8(): "UTINYINT"}


def views(dataset: Dataset, stats: pa.Schema) -> dict[str, str]:
    """By name, a SELECT on `stats` and `shapes`, or on a view before it; `stats` is the schema of that table."""
    per_class = {column for each in STATISTICS if each.per_class for column in each.columns(dataset.class_names)}
    whole = [_name(column) for column in stats.names if column not in per_class]
    others = [each.name for each in STATISTICS if each.table == schema.SHAPES and not each.per_class]
    return {
        "faces": "SELECT * FROM stats JOIN (SELECT * EXCLUDE (image_id) FROM shapes) USING (unit, seq, face)",
        "common": f"SELECT {', '.join([*whole, *others, *common_columns(dataset)])} FROM faces",
    }


def common_columns(dataset: Dataset) -> Iterator[str]:
    """Every statistic per class of every common name: `px_hair AS px_hair`, ..."""
    for statistic in (each for each in STATISTICS if each.per_class):
        for common in COMMON:
            names = [dataset.class_names[label] for label in dataset.ids(common)]
            column = _name(f"{statistic.name}{names[0]}") if names else _null(statistic)
            yield f"{column} AS {_name(f'{statistic.name}{common}')}"
        for bit, common in enumerate(PAIRED):
            pair = [_name(f"{statistic.name}{dataset.class_names[label]}") for label in dataset.ids(common)]
            for side, (usual, swapped) in {"left": (0, 1), "right": (1, 0)}.items():
                column = _null(statistic)
                if len(pair) == 2:
                    column = f"CASE WHEN swapped & {1 << bit} > 0 THEN {pair[swapped]} ELSE {pair[usual]} END"
                yield f"{column} AS {_name(f'{statistic.name}{common}_{side}')}"


def _null(statistic: Statistic) -> str:
    return f"CAST(NULL AS {_TYPES[statistic.type]})"


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'
