"""Every column of an output: its table, type, unit and meaning, and an example of its values."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from segface_batch.output import schema
from segface_batch.output.reader import Output, open_output

#: Rows of the first part among which an example is looked for.
_ROWS = 1000


def columns(out: str) -> pa.Table:
    """A row per column with `column`, `table`, `type`, `unit`, `example` and `meaning`; a statistic of every class is
    one row, and its example that of the class with the highest one.

    FileNotFoundError where nothing is published yet.
    """
    output = open_output(out)
    found = []
    for table in reversed(schema.TABLES):
        values = _first_rows(output, table)
        for name, about in output.run["columns"].items():
            if about["table"] == table:
                of = _columns_of(name, output)
                row = {"column": name, "table": table, "type": str(values.schema.field(of[0]).type)}
                found.append(row | {"unit": about.get("unit", ""), "example": _example(values, of)} | _meaning(about))
    return pa.Table.from_pylist(found)


def _columns_of(name: str, output: Output) -> list[str]:
    return [name.replace("<class>", each.name) for each in output.classes] if "<class>" in name else [name]


def _first_rows(output: Output, table: str) -> pa.Table:
    with pq.ParquetFile(output.files(table)[0], filesystem=output.filesystem) as file:
        if table != schema.MASKS:
            return pa.Table.from_batches([next(file.iter_batches(_ROWS))], file.schema_arrow)
        return file.schema_arrow.empty_table()


def _example(values: pa.Table, names: list[str]) -> str:
    """NAME = VALUE for one of several columns, or the value of the only one; "" where all are null."""
    seen = [(name, value) for name in names for value in values[name].drop_null()[:1].to_pylist()]
    if not seen:
        return ""
    name, value = max(seen, key=lambda pair: pair[1]) if len(names) > 1 else seen[0]
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return f"{name} = {text}" if len(names) > 1 else text


def _meaning(about: dict[str, Any]) -> dict[str, str]:
    source = f" ({about['source']})" if about.get("source") else ""
    return {"meaning": about["meaning"] + source}
