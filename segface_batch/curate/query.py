"""SQL over an output: one SELECT on its tables and views, and its result as table, csv, json or parquet.

The tables are `stats`, `shapes` and `masks`, the views those of curate/views.py.  DuckDB sees the Parquet files of the
output (those of a store through Arrow data sets) and nothing else: no other file, network, extension, setting or Python
variable.  Columns and filters reach the Parquet reader, so a query that does not name `mask` reads no mask.  Results
come in batches; what a statement must hold at once is limited by `memory_limit`.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from segface_batch.curate.views import views
from segface_batch.output import schema
from segface_batch.output.reader import Output, open_output

FORMS = ("table", "csv", "json", "parquet")

_TABLES = "the tables are stats, shapes and masks, the views faces and common"

#: How DuckDB's functions begin that read files.  What they may read is limited besides (`_show`).
_READERS = ("read_", "parquet_", "glob", "sniff_")

_WORD = re.compile(r"\w+")

#: Rows of a batch: 50 MB of masks.
_BATCH_ROWS = 8192

#: A job may be running on the same machine; it keeps the other cores.
THREADS = min(4, os.cpu_count() or 1)

#: Characters of a table's cell; longer ones lose their middle.
_CELL = 60

#: How many rows beyond those that it shows a table counts, at most.
_COUNTED = 100_000

#: How long an interrupted query may take to stop.  DuckDB stops only between function calls; after a longer one the
#: caller has its error already, and the process ends with the call (with a daemon thread in DuckDB it would abort).
_GRACE_SECONDS = 1.0

T = TypeVar("T")


def query(out: str, sql: str, *, timeout: float | None = None, memory_limit: str = "2GB") -> pa.RecordBatchReader:
    """The rows of one SELECT, batch by batch; the schema's metadata keeps the class table of the output.

    `timeout` is in seconds and includes the last batch.  ValueError, with DuckDB's reason in one line, where the
    statement is refused or fails; TimeoutError; FileNotFoundError where nothing is published yet.  Any batch can raise
    them.  Ctrl-C stops the query.
    """
    output = open_output(out)
    deadline = None if timeout is None else time.monotonic() + timeout

    def step(work: Callable[[], T]) -> T:
        try:
            return _interruptible(connection, work, deadline)
        except TimeoutError:
            if timeout is None:
                raise
            raise TimeoutError(f"query stopped after {timeout:g} s; ask for less or allow more time") from None
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise ValueError(_reason(error, memory_limit)) from error

    try:
        connection = _connection(memory_limit)
    except duckdb.Error as error:
        raise ValueError(f"memory limit '{memory_limit}': {_reason(error, memory_limit)}") from error
    _show(connection, output, sql)
    statement = step(lambda: _only_select(connection, sql))
    rows = step(lambda: connection.sql(statement).to_arrow_reader(_BATCH_ROWS))

    def batches() -> Iterator[pa.RecordBatch]:
        with contextlib.closing(connection):
            while found := step(lambda: _some(rows)):
                yield from found

    metadata = schema.metadata(output.run)
    return pa.RecordBatchReader.from_batches(rows.schema.with_metadata(metadata), batches())


def _some(rows: pa.RecordBatchReader) -> list[pa.RecordBatch]:
    """The next batches, none at the end.  A filter gives one for every row group, however small, and each call of
    `_interruptible` waits for a thread."""
    found, count = [], 0
    while count < _BATCH_ROWS and (batch := next(rows, None)) is not None:
        found.append(batch)
        count += batch.num_rows
    return found


def _connection(memory_limit: str) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(
        ":memory:",
        config={
            "python_enable_replacements": False,
            "autoload_known_extensions": False,
            "autoinstall_known_extensions": False,
            "temp_directory": "",  # nothing is spilled into the folder one happens to be in
            "memory_limit": memory_limit,
            "threads": THREADS,
        },
    )


def _show(connection: duckdb.DuckDBPyConnection, output: Output, sql: str) -> None:
    """Let the connection see what of the output the statement names, and nothing else from now on."""
    # DuckDB takes *, ? and [ in a path for a pattern.
    is_plain = isinstance(output.filesystem, pafs.LocalFileSystem) and not set("*?[") & set(output.root)
    selects = dict.fromkeys(schema.TABLES, "") | views(output.dataset, output.stats_schema)
    named = _named(sql, selects)
    files = {table: output.files(table) for table in schema.TABLES if table in named}
    if is_plain:
        connection.execute(f"SET allowed_paths = {_list([file for each in files.values() for file in each])}")
    connection.execute("SET enable_external_access = false")
    for name in named:
        if name in files and not is_plain:
            connection.register(name, getattr(output, name))
        else:
            select = selects[name] or f"SELECT * FROM read_parquet({_list(files[name])})"
            connection.execute(f"CREATE VIEW {name} AS {select}")
    connection.execute("SET lock_configuration = true")


def _named(sql: str, selects: dict[str, str]) -> list[str]:
    """The tables and views whose names are words of a statement, with those that they select from before them; all
    where it names none, since it may ask what there is.

    DuckDB opens files and binds columns to make a view, which for `common` takes a tenth of the time of a question to
    a million rows (pipelines/benchmarks/queries.py).
    """
    words, named = set(_WORD.findall(sql.lower())), []
    for name in reversed(selects):
        if name in words:
            named.insert(0, name)
            words.update(_WORD.findall(selects[name]))
    return named or [*selects]


def _list(texts: Iterable[str]) -> str:
    """Texts as a list of DuckDB's SQL."""
    return "[" + ", ".join("'" + text.replace("'", "''") + "'" for text in texts) + "]"


def _only_select(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise ValueError(f"give one SELECT statement, not {len(statements) or 'an empty one'}")
    if statements[0].type != duckdb.StatementType.SELECT:
        raise ValueError(f"only SELECT is allowed, not {statements[0].type.name}; an output is never changed by SQL")
    ((parsed,),) = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchall()
    for name in _sources(json.loads(parsed)):
        if "/" in name or "." in name or name.startswith(_READERS):
            raise ValueError(f"files are not read by name ('{_printable(name)}'); {_TABLES}")
    return statements[0]


def _sources(node: Any) -> Iterator[str]:
    """The names of tables and of functions that give tables, in a statement as DuckDB serializes it."""
    if isinstance(node, dict):
        if node.get("type") == "BASE_TABLE":
            yield node["table_name"]
        elif node.get("type") == "TABLE_FUNCTION":
            yield node["function"].get("function_name", "")
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _sources(each)


def _interruptible(connection: duckdb.DuckDBPyConnection, work: Callable[[], T], deadline: float | None) -> T:
    """Run `work` in its own thread: only the main thread gets Ctrl-C, and DuckDB would keep it busy."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    def stop() -> None:
        while not future.done():
            connection.interrupt()  # repeated: a statement that has not begun ignores it
            wait([future], timeout=0.05)

    try:
        threading.Thread(target=run).start()
        return future.result(None if deadline is None else max(0.0, deadline - time.monotonic()))
    except (TimeoutError, KeyboardInterrupt):
        stopper = threading.Thread(target=stop)
        stopper.start()
        stopper.join(_GRACE_SECONDS)
        raise


def _reason(error: Exception, memory_limit: str) -> str:
    """DuckDB's message in one line, with the names it proposes and without its drawing of the statement."""
    text = str(error).split("\n\nLINE ")[0]
    if "Out of Memory" in text:
        return f"the query needs more than {memory_limit} of memory; ask for fewer rows or columns, or allow more"
    if unknown := re.search(r"Table with name (.+) does not exist", text):
        return f"there is no table {unknown[1]}; {_TABLES}"
    return textwrap.shorten(text, 400, placeholder=" ...")


def write(
    result: pa.Table | pa.RecordBatchReader,
    form: str,
    destination: TextIO | str | Path,
    *,
    limit: int = 40,
    width: int | None = None,
) -> None:
    """Write a result in one of FORMS: to a text stream, or as parquet to a new file.

    table: for people; at most `limit` rows and, where `width` is given, lines of at most `width` characters.
    csv: a header and a line per row; nulls are empty, lists and structs are JSON.
    json: one array of objects, one per line, written as the rows come; NaN and infinity are null.
    parquet: the columns as they are, with the class table in the metadata; the file appears when it is complete.

    ValueError where a form cannot hold the result, FileExistsError where the file exists.
    """
    if form not in FORMS:
        raise ValueError(f"unknown form '{form}'; choose one of {', '.join(FORMS)}")
    if form == "parquet":
        if not isinstance(destination, str | Path):
            raise ValueError("parquet is binary and goes to a file, not to a terminal or pipe: name one with --to FILE")
        _write_parquet(result, Path(destination))
    elif isinstance(destination, str | Path):
        raise ValueError(f"{form} is text: open '{destination}' for writing and give that")
    elif form == "table":
        _write_table(result, destination, limit, width)
    else:
        _refuse_bytes(result.schema, form)
        (_write_csv if form == "csv" else _write_json)(result, destination)


def _write_parquet(result: pa.Table | pa.RecordBatchReader, target: Path) -> None:
    _refuse_doubles(result.schema, "parquet")
    if target.exists():
        raise FileExistsError(f"'{target}' exists; remove it or name another file")
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with pq.ParquetWriter(temporary, result.schema, compression="zstd") as writer:
            for batch in _batches(result):
                writer.write_batch(batch)
        os.link(temporary, target)  # fails where a rename would overwrite
    except pa.ArrowNotImplementedError as error:
        raise ValueError(f"parquet cannot hold this result: {textwrap.shorten(str(error), 200)}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_csv(result: pa.Table | pa.RecordBatchReader, stream: TextIO) -> None:
    def put(batch: pa.RecordBatch, header: bool) -> None:
        sink = io.BytesIO()
        pyarrow.csv.write_csv(batch, sink, pyarrow.csv.WriteOptions(include_header=header))
        stream.write(sink.getvalue().decode())

    empty = [pa.array([], kind) for kind in result.schema.types]
    put(_flat(pa.RecordBatch.from_arrays(empty, names=result.schema.names)), True)
    for batch in _batches(result):
        put(_flat(batch), False)


def _flat(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows in types that CSV has: nested ones become JSON, others without a text form their str."""
    columns = []
    for column in map(_shortest, batch.columns):
        if pa.types.is_nested(column.type):
            texts = [None if value is None else _json(value) for value in column.to_pylist()]
            column = pa.array(texts, pa.string())
        elif pa.types.is_dictionary(column.type) or pa.types.is_interval(column.type):
            texts = [None if value is None else str(value) for value in column.to_pylist()]
            column = pa.array(texts, pa.string())
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _write_json(result: pa.Table | pa.RecordBatchReader, stream: TextIO) -> None:
    _refuse_doubles(result.schema, "json")
    stream.write("[")
    separator = "\n"
    for batch in _batches(result):
        names = batch.schema.names
        for row in zip(*(_shortest(column).to_pylist() for column in batch.columns), strict=True):
            stream.write(separator + _json(dict(zip(names, row, strict=True))))
            separator = ",\n"
    stream.write("\n]\n")


def _write_table(result: pa.Table | pa.RecordBatchReader, stream: TextIO, limit: int, width: int | None) -> None:
    rows: list[list[str]] = []
    more = 0
    for batch in _batches(result):
        shown = batch.slice(0, limit - len(rows))
        columns = [[_cell(value) for value in column.to_pylist()] for column in shown.columns]
        rows += map(list, zip(*columns, strict=True))
        more += batch.num_rows - shown.num_rows
        if more > _COUNTED:
            break
    names = [_cut(_printable(name)) for name in result.schema.names]
    right = [pa.types.is_integer(t) or pa.types.is_floating(t) or pa.types.is_decimal(t) for t in result.schema.types]
    lines = _aligned([names, *rows], right)
    if width is not None and len(lines[0]) > width:
        if len(rows) == 1:
            lines = _aligned([["column", "value"], *map(list, zip(names, rows[0], strict=True))], [False, False])
        else:
            lines, hidden = _fitting([names, *rows], right, width)
            lines.append(f"({hidden} more columns: name the ones you want, or take another --format)")
    if more:
        count = f"more than {_COUNTED:,}" if more > _COUNTED else f"{more:,}"
        lines.append(f"({count} more rows: narrow the query with LIMIT or WHERE, or take all with another --format)")
    elif not rows:
        lines.append("(no rows)")
    stream.write("".join(f"{line.rstrip()}\n" for line in lines))


def _fitting(rows: list[list[str]], right: list[bool], width: int) -> tuple[list[str], int]:
    """Lines of the first columns, as many as fit into `width` but at least one, and how many are left out."""
    for count in range(len(right) - 1, 0, -1):
        lines = _aligned([row[:count] for row in rows], right[:count])
        if len(lines[0]) <= width or count == 1:
            return lines, len(right) - count
    return _aligned(rows, right), 0


def _aligned(rows: list[list[str]], right: list[bool]) -> list[str]:
    """Lines of equal length, numbers aligned right, a rule under the header."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if is_right else cell.ljust(width)
            for cell, width, is_right in zip(row, widths, right, strict=True)
        )
        for row in rows
    ]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]


def _cell(value: Any) -> str:
    """A value as a person reads it, on one line of at most _CELL characters."""
    if isinstance(value, dict) and isinstance(value.get("bytes"), bytes):
        value = value["bytes"]  # Hugging Face's layout of an image
    if value is None:
        return "null"
    if isinstance(value, bytes):
        kind = "png" if value.startswith(b"\x89PNG\r\n\x1a\n") else "binary"
        return f"<{kind} {len(value) / 1000:.1f} kB>"
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 or not math.isfinite(value) else f"{value:.1f}"
    if isinstance(value, bool | dict | list):
        value = _json(value)
    return _cut(_printable(str(value)))


def _cut(text: str) -> str:
    """Keep the start and the end, which of a path is the name."""
    half = _CELL // 2
    return text if len(text) <= _CELL else f"{text[: half - 1]}…{text[-half:]}"


def _printable(text: str) -> str:
    """Escape control characters: file names come from anywhere, and terminals obey such characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _shortest(column: pa.Array) -> pa.Array:
    """32-bit floats as the 64-bit ones with the same shortest digits: 0.1, not 0.10000000149011612."""
    return column.cast(pa.string()).cast(pa.float64()) if column.type == pa.float32() else column


def _json(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, default=str)


def _plain(value: Any) -> Any:
    """The value as JSON has it; DuckDB's sums of integers are decimals, bytes show their length."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return _cell(value)
    if isinstance(value, Decimal):
        value = int(value) if value == value.to_integral_value() else float(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _batches(result: pa.Table | pa.RecordBatchReader) -> Iterable[pa.RecordBatch]:
    return result.to_batches() if isinstance(result, pa.Table) else result


def _refuse_bytes(columns: pa.Schema, form: str) -> None:
    for field in columns:
        if _holds_bytes(field.type):
            raise ValueError(
                f"{form} cannot hold the bytes of column '{field.name}'; leave it out, take base64(...) of it "
                "(of mask.bytes), or choose parquet"
            )


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return True
    return any(_holds_bytes(kind.field(index).type) for index in range(kind.num_fields))


def _refuse_doubles(columns: pa.Schema, form: str) -> None:
    for name in columns.names:
        if columns.names.count(name) > 1:
            raise ValueError(f"{form} needs one column '{name}', not two; rename one with AS, or join with USING")
