from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segface_batch.curate import query as queries
from segface_batch.curate.query import query, write
from segface_batch.output import schema as records
from tests.curate import small_output

ONE_LINE = r"\A.+\Z"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return small_output.small_output(tmp_path)


def answer(out: Path, sql: str, form: str = "csv", **options: int) -> str:
    stream = io.StringIO()
    write(query(str(out), sql), form, stream, **options)
    return stream.getvalue()


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_select_gives_rows_with_nulls_and_without_padding_digits(out: Path) -> None:
    sql = "select image_id, face, status, error, score, frac_hair from stats order by unit, seq, face"
    assert answer(out, sql).splitlines() == [
        '"image_id","face","status","error","score","frac_hair"',
        '"a/one.png",0,"ok",,,0.25',
        '"broken.png",0,"error","truncated",,',
        '"two.png",0,"ok",,0.9,0.25',
        '"two.png",1,"ok",,0.8,0',
        '"empty.png",0,"no_face",,,',
    ]


def test_both_views_join_on_the_key(out: Path) -> None:
    table = query(str(out), "select px_hair, mask from stats join masks using (unit, seq, face) where px_hair > 0")
    rows = table.read_all().to_pylist()
    assert [row["px_hair"] for row in rows] == [16, 16]
    assert all(row["mask"]["bytes"].startswith(b"\x89PNG") for row in rows)


def test_the_answer_keeps_the_class_table(out: Path) -> None:
    metadata = query(str(out), "select 1 as one").schema.metadata
    run = json.loads(metadata[b"segface_batch"])
    assert [entry["name"] for entry in run["classes"]] == list(small_output.NAMES)


def test_json_is_one_array_with_an_object_a_line(out: Path) -> None:
    text = answer(
        out,
        "select image_id, sum(px_hair) as hair, avg(score) as score, 0.1::float as tenth, 'nan'::double as none, "
        "[1, 2] as list, date '2026-01-02' as day from stats where seq = 0 group by image_id order by image_id",
        "json",
    )
    assert text.splitlines()[0] == "["
    assert len(text.splitlines()) == 4
    common = {"tenth": 0.1, "none": None, "list": [1, 2], "day": "2026-01-02"}
    assert json.loads(text) == [
        {"image_id": "a/one.png", "hair": 16, "score": None, **common},
        {"image_id": "two.png", "hair": 16, "score": pytest.approx(0.85), **common},
    ]
    assert json.loads(answer(out, "select 1 as one where false", "json")) == []


def test_csv_writes_lists_as_json_and_tells_empty_text_from_null(out: Path) -> None:
    text = answer(
        out, "select ['a', 'b'] as list, '' as empty, null as nothing, 'a,\"b' as quoted, sum(seq) from stats"
    )
    assert text == '"list","empty","nothing","quoted","sum(seq)"\n"[""a"", ""b""]","",,"a,""b",2\n'
    assert answer(out, "select 1 as one where false") == '"one"\n'


def test_a_table_is_aligned_and_says_what_it_leaves_out(out: Path) -> None:
    sql = (
        "select image_id, score, mask from stats join masks using (image_id, unit, seq, face) order by unit, seq, face"
    )
    size = len(pq.read_table(out / "masks" / "part-00000.parquet")["mask"][0].as_py()["bytes"]) / 1000
    assert answer(out, sql, "table", limit=3).splitlines() == [
        "image_id    score  mask",
        "----------  -----  ------------",
        f"a/one.png    null  <png {size:.1f} kB>",
        "broken.png   null  null",
        f"two.png       0.9  <png {size:.1f} kB>",
        "(2 more rows: narrow the query with LIMIT or WHERE, or take all with another --format)",
    ]
    assert answer(out, "select 1 as one where false", "table") == "one\n---\n(no rows)\n"


def test_a_table_counts_only_so_many_rows_beyond(out: Path) -> None:
    last = answer(out, "select range from range(10000000000)", "table", limit=1).splitlines()[-1]
    assert last.startswith("(more than 100,000 more rows: ")


def test_a_table_too_wide_loses_columns_and_a_single_row_is_turned(out: Path) -> None:
    lines = answer(out, "select image_id, status, uri from stats", "table", width=20).splitlines()
    assert lines[0] == "image_id    status"
    assert lines[-1] == "(1 more columns: name the ones you want, or take another --format)"
    lines = answer(out, "select image_id, status, px_hair from stats limit 1", "table", width=20).splitlines()
    assert lines == [
        "column    value",
        "--------  ---------",
        "image_id  a/one.png",
        "status    ok",
        "px_hair   16",
    ]


def test_long_cells_lose_their_middle_and_control_characters_are_escaped(out: Path) -> None:
    sql = (
        "select repeat('a', 50) || '/' || repeat('b', 50) as name, chr(27) || '[2J' || chr(10) as evil, 1e9 / 3 as big"
    )
    cells = answer(out, sql, "table").splitlines()[2].split("  ")
    assert [cell.strip() for cell in cells if cell] == ["a" * 29 + "…" + "b" * 30, r"\x1b[2J\n", "333333333.3"]
    assert answer(out, 'select 1 as "\x1b[2J"', "table").splitlines()[0] == r"\x1b[2J"


def test_parquet_goes_to_a_new_file_with_masks_and_class_table(out: Path, tmp_path: Path) -> None:
    target = tmp_path / "m.parquet"
    write(query(str(out), "select * from masks where image_id = 'two.png'"), "parquet", target)
    table = pq.read_table(target)
    assert table["face"].to_pylist() == [0, 1]
    assert table.schema.field("mask").type == pa.struct({"bytes": pa.binary(), "path": pa.string()})
    assert json.loads(table.schema.metadata[b"segface_batch"])["dataset"] == "LaPa"
    before = snapshot(tmp_path)
    with pytest.raises(FileExistsError, match=r"m\.parquet' exists; remove it or name another file"):
        write(query(str(out), "select 1"), "parquet", target)
    assert snapshot(tmp_path) == before


def test_a_failing_query_leaves_no_parquet_file(out: Path, tmp_path: Path) -> None:
    sql = "select cast(case when range = 50000 then 'x' else '1' end as int) as n from range(100000)"
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match="Could not convert string 'x' to INT32"):
        write(query(str(out), sql), "parquet", tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="parquet needs one column 'a', not two; rename one with AS"):
        write(query(str(out), "select 1 as a, 2 as a"), "parquet", tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="parquet cannot hold this result"):
        write(query(str(out), "select interval 1 day as i"), "parquet", tmp_path / "x.parquet")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("sql", "form", "reason"),
    [
        ("select mask from masks", "csv", "csv cannot hold the bytes of column 'mask'; leave it out, take base64"),
        ("select [mask] as m from masks", "json", "json cannot hold the bytes of column 'm'"),
        ("select 1 as a, 2 as a", "json", "json needs one column 'a', not two; rename one with AS"),
        ("select 1", "parquet", "parquet is binary and goes to a file"),
        ("select 1", "yaml", "unknown form 'yaml'; choose one of table, csv, json, parquet"),
    ],
)
def test_a_form_that_cannot_hold_the_answer_says_so(out: Path, sql: str, form: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        answer(out, sql, form)


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        (
            "select frac_hairs from stats",
            'column "frac_hairs" not found in FROM clause! Candidate bindings: "frac_hair"',
        ),
        ("select * from stat", "there is no table stat; the tables are stats, shapes and masks, the views faces and"),
        ("select lenght(uri) from stats", 'name lenght does not exist! Did you mean "length"?'),
        ("select image_id::int from stats", "Could not convert string"),
        ("select * from stats where", 'syntax error at or near "where"'),
        ("", "give one SELECT statement, not an empty one"),
        ("-- nothing", "give one SELECT statement, not an empty one"),
        ("select $1", "Values were not provided"),
    ],
)
def test_a_wrong_statement_is_answered_in_one_line(out: Path, sql: str, reason: str) -> None:
    with pytest.raises(ValueError, match=ONE_LINE) as caught:
        query(str(out), sql).read_all()
    assert reason in str(caught.value)


#: Everything that reads, writes or loads more than the two views, or changes them or the settings.
HOSTILE = (
    "select * from '/etc/passwd'",
    "select * from 'OUT/stats/part-00000.parquet'",
    "select * from read_csv('/etc/passwd')",
    "select * from read_text('/etc/passwd')",
    "select * from read_blob('/etc/passwd')",
    "select * from read_json('/etc/passwd')",
    "select * from sniff_csv('/etc/passwd')",
    "select * from read_parquet('OUT/stats/*.parquet')",
    "select * from parquet_metadata('OUT/stats/part-00000.parquet')",
    "select * from glob('/etc/*')",
    "select * from query('select * from read_text(''/etc/passwd'')')",
    "select * from query_table('/etc/passwd')",
    "select * from query('drop view stats')",
    "select * from json_execute_serialized_sql(json_serialize_sql('select * from read_text(''/etc/passwd'')'))",
    "select * from duckdb_secrets()",
    "from 'https://example.com/x.parquet'",
    "from 's3://bucket/x.parquet'",
    "copy stats to 'OUT/copy.csv'",
    "copy (select 1) to 'OUT/stats/part-00000.parquet'",
    "copy stats from 'OUT/x.csv'",
    "with x as (copy stats to 'OUT/copy.csv') select 1",
    "attach 'OUT/x.db'",
    "attach 'OUT/x.db' as x; select 1",
    "install httpfs",
    "load httpfs",
    "load 'OUT/x.duckdb_extension'",
    "set enable_external_access = true",
    "set threads = 64",
    "reset memory_limit",
    "set variable a = 1",
    "pragma threads = 64",
    "pragma enable_profiling",
    "call pragma_version()",
    "select * from enable_logging()",
    "select getenv('HOME')",
    "select * from SECRET",
    "drop view stats",
    "drop view masks",
    "create table t (i int)",
    "create or replace view stats as select 1",
    "create macro stats() as table select 1",
    "insert into stats values (1)",
    "update stats set image_id = 'x'",
    "delete from masks",
    "with gone as (delete from stats returning *) select * from gone",
    "alter view stats rename to s",
    "export database 'OUT/export'",
    "import database 'OUT/export'",
    "prepare p as select 1",
    "execute p",
    "begin",
    "checkpoint",
    "vacuum",
    "use memory",
    "detach memory",
    "explain analyze copy stats to 'OUT/copy.csv'",
    "select 1; select 2",
    "select 1; drop view stats; --",
    "select 1 /* */; copy stats to 'OUT/copy.csv' /* */",
    "-- select 1\ndrop view stats",
    "/* select */ drop view stats",
    ";;drop view stats",
    "pivot stats on status using count(*)",
    "select * from python_map_function((select 1))",
    "select * from arrow_scan(1, 2, 3)",
)

#: A Python variable of the caller; DuckDB reads those by name unless it is configured not to.
SECRET = pa.table({"password": ["hunter2"]})


@pytest.mark.parametrize("sql", HOSTILE)
def test_a_hostile_statement_is_refused_in_one_line(out: Path, tmp_path: Path, sql: str) -> None:
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match=ONE_LINE):
        query(str(out), sql.replace("OUT", str(out))).read_all()
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "sql",
    [
        "select count(*) as n from FACES",
        'with x as (from "Common") select count(*) as n from x',
        "select count(*) as n from query_table('faces') where face in (select face from masks)",
        "select count(n_faces) as n from stats",
    ],
)
def test_whatever_a_statement_names_is_there(out: Path, sql: str) -> None:
    assert query(str(out), sql).read_all().to_pylist() == [{"n": 5}]


@pytest.mark.parametrize("sql", ["show tables", "select table_name from information_schema.tables order by all"])
def test_a_statement_can_ask_what_there_is(out: Path, sql: str) -> None:
    assert query(str(out), sql).read_all()[0].to_pylist() == ["common", "faces", "masks", "shapes", "stats"]


def test_files_are_closed_to_sql_also_where_no_function_for_them_is_known(out: Path) -> None:
    """The names of such functions are refused besides; DuckDB may get more of them."""
    settings = ("enable_external_access", "lock_configuration", "autoload_known_extensions")
    columns = ", ".join(f"current_setting('{name}') as {name}" for name in settings)
    assert query(str(out), f"select {columns}").read_all().to_pylist() == [
        dict(zip(settings, (False, True, False), strict=True))
    ]


def test_a_python_variable_is_no_table(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two settings forbid it, and each is enough: that against files, and that against variables."""
    monkeypatch.setattr(queries, "SECRET", SECRET, raising=False)  # where DuckDB looks for it
    with pytest.raises(ValueError, match=r"\Athere is no table SECRET; the tables are stats, shapes and masks, .*\Z"):
        query(str(out), "select * from SECRET")
    for setting in ("enable_external_access", "python_enable_replacements"):
        with (
            duckdb.connect(config={setting: False}) as connection,
            pytest.raises(duckdb.CatalogException, match="Table with name SECRET does not exist"),
        ):
            connection.sql("select * from SECRET")
    with duckdb.connect() as connection:
        assert connection.sql("select * from SECRET").fetchall() == [("hunter2",)]


def test_two_questions_do_not_see_each_other(out: Path) -> None:
    with pytest.raises(ValueError, match="only SELECT is allowed, not DROP"):
        query(str(out), "drop view stats")
    assert query(str(out), "select count(*) as n from stats").read_all().to_pylist() == [{"n": 5}]


@pytest.mark.parametrize(
    "sql",
    [
        "with recursive r as (select 1 as x union all select x + 1 from r) select count(*) from r",
        "select count(*) from range(10000000) a join range(10000000) b on a.range + b.range > 0",
        "select * from range(100000000000)",
        "select levenshtein(repeat('a', 60000), repeat('b', 60000))",  # one call, which DuckDB cannot interrupt
    ],
)
def test_an_endless_query_is_stopped_by_its_timeout(out: Path, sql: str) -> None:
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"query stopped after 0\.5 s; ask for less or allow more time"):
        for _ in query(str(out), sql, timeout=0.5):
            pass
    assert time.monotonic() - start < 3


def test_a_process_ends_cleanly_after_a_call_that_cannot_be_interrupted(out: Path) -> None:
    program = (
        "import sys; from segface_batch.curate.query import query\n"
        "sql = \"select levenshtein(repeat('a', 40000), repeat('b', 40000))\"\n"
        "try: query(sys.argv[1], sql, timeout=0.1)\n"
        "except TimeoutError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, out], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "query stopped after 0.1 s; ask for less or allow more time\n"


def test_a_query_that_hoards_memory_is_stopped(out: Path, tmp_path: Path) -> None:
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match="the query needs more than 100MB of memory; ask for fewer rows"):
        query(
            str(out), "select md5(range::text) as m from range(100000000) order by m", memory_limit="100MB"
        ).read_all()
    assert snapshot(tmp_path) == before
    with pytest.raises(ValueError, match=r"memory limit 'lots': .*must have a number"):
        query(str(out), "select 1", memory_limit="lots")


def test_ctrl_c_stops_a_query(out: Path) -> None:
    program = (
        "import sys; from segface_batch.curate.query import query\n"
        "print('ready', flush=True)\n"
        "try: query(sys.argv[1], 'select count(*) from range(10000000) a, range(10000000) b where a.range > b.range')\n"
        "except KeyboardInterrupt: print('stopped', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(out)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.7)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "stopped\n"
        assert process.wait(60) == 0


def bytes_read(out: Path, sql: str) -> int:
    """How much a query reads from files, as Linux counts it."""
    before = _total_read()
    query(str(out), sql).read_all()
    return _total_read() - before


def _total_read() -> int:
    return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0])


@pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="counts bytes as Linux does")
def test_questions_that_do_not_name_the_mask_read_no_mask(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [small_output.row(f"{number}.png", "x", number, small_output.FACE) for number in range(1000)]
    for row in rows:
        row["mask"] = {"bytes": random.bytes(20_000)}
    out = tmp_path / "out"
    small_output.write_part(out, 0, rows)
    size = (out / "masks" / "part-00000.parquet").stat().st_size
    assert size > 20_000_000
    for sql in (
        "select count(*) from stats",
        "select count(*) from masks",
        "select image_id from masks",
        "select image_id from masks where seq = 3",
        "select mask from masks where seq = -1",
    ):
        assert bytes_read(out, sql) < 1_000_000, sql  # footers of three files
    assert bytes_read(out, "select mask from masks") > size - 300_000


def test_before_anything_is_published_one_line_says_so(tmp_path: Path) -> None:
    (tmp_path / "out" / "_segface").mkdir(parents=True)
    (tmp_path / "out" / "stats").mkdir()
    (tmp_path / "out" / "stats" / ".part-00000.parquet.tmp").write_bytes(b"half")
    (tmp_path / "out" / "stats" / "._part-00000.parquet").write_bytes(b"what macOS leaves beside a copied file")
    for name in ("out", "nowhere"):
        with pytest.raises(FileNotFoundError) as caught:
            query(str(tmp_path / name), "select 1")
        assert str(caught.value) == (
            f"'{tmp_path}/{name}/stats' has no Parquet part yet: 'segface-batch annotate INPUT {tmp_path}/{name}' is "
            "still running or was not started, or this is not the folder of an output"
        )


def test_masks_published_ahead_of_their_statistics_are_not_seen(out: Path) -> None:
    (out / "stats" / "part-00001.parquet").unlink()
    assert query(str(out), "select count(*) as n from masks").read_all().to_pylist() == [{"n": 2}]
    (out / "masks" / "part-00000.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"masks/part-00000.parquet' is missing though stats has that part"):
        query(str(out), "select 1")


def test_a_newer_schema_or_a_foreign_file_is_refused(tmp_path: Path) -> None:
    small_output.write_part(tmp_path, 0, [small_output.row("a", "a", 0)], records.SCHEMA_VERSION + 1)
    with pytest.raises(ValueError, match="has schema version 6, and this segface-batch reads 5; use a newer one"):
        query(str(tmp_path), "select 1")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "stats" / "part-00000.parquet")
    with pytest.raises(ValueError, match="was not written by segface-batch: its metadata lacks the key"):
        query(str(tmp_path), "select 1")


def test_an_output_is_found_behind_a_url(out: Path) -> None:
    assert query(f"file://{out}", "select count(*) as n from stats").read_all().to_pylist() == [{"n": 5}]


@pytest.mark.parametrize(
    ("name", "other"), [("a[1]", "a1"), ("what?", "what1"), ("all*", "all1"), ("it's", "its"), ("a'', 'b", "ab")]
)
def test_an_output_is_read_whatever_its_folder_is_called(name: str, other: str, tmp_path: Path) -> None:
    """And not the other, whose name would fit the first one if that were a pattern."""
    out = small_output.small_output(tmp_path / name)
    (small_output.small_output(tmp_path / other) / "stats" / "part-00001.parquet").unlink()
    counted = "select (select count(*) from stats) as s, (select count(*) from shapes) as h, count(*) as m from masks"
    assert query(str(out), counted).read_all().to_pylist() == [{"s": 5, "h": 5, "m": 5}]
