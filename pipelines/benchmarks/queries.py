"""How much longer does `query` take than DuckDB itself on the same Parquet files, and how large are these?

    python -m pipelines.benchmarks.queries [ROWS [ROUNDS [FOLDER]]]

Makes an output of ROWS faces by varying the statistics of the rendered faces, with masks of 8 x 8 pixels; in FOLDER it
stays, for the next time.  All reads are from the page cache.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from PIL import Image

from pipelines.benchmarks import corpus
from pipelines.benchmarks.rounds import paired, timed
from segface_batch import catalog
from segface_batch.curate.query import THREADS, query
from segface_batch.images import masks, statistics
from segface_batch.images.crop import crop_image
from segface_batch.inputs.image import SourceImage
from segface_batch.job import DEFAULT_PART_ROWS
from segface_batch.model.segface_network import SegFaceNetwork
from segface_batch.output import parts, schema
from segface_batch.output.face import Face, FetchedImage, Pasted
from segface_batch.output.plan import MAX_UNIT

ROWS, ROUNDS = 1_000_000, 5

CHECKPOINT = catalog.find("demo-synthetic")
DATASET = CHECKPOINT.dataset

#: Side of the masks that are measured, as most published checkpoints have it, and of those that are stored.
SIDE, STORED_SIDE = 512, 8

#: How often every rendered face comes for one image without a face and one with an error.
FACES = 4

#: A statistic is multiplied by a random number from this one to one.
LEAST = 0.7

#: The rows whose statistic is larger than in this share of them are asked for.
QUANTILE = 0.9

#: Statistics that are the same in every row of a run.
_SIZES = ("mask_pixels", "mask_width", "mask_height")


def write(out: Path, rows: int, part_rows: int = DEFAULT_PART_ROWS) -> None:
    """The parts of an output that are not there yet."""
    run = {"settings": {"max_pixels": 1, "faces": "whole"}, **schema.describe(DATASET)}
    measured: pa.Table | None = None
    for number, first in enumerate(range(0, rows, part_rows)):
        places = {table: out / table / f"part-{number:05d}.parquet" for table in schema.TABLES}
        if places[schema.STATS].exists():
            continue
        measured = rendered() if measured is None else measured
        indices = np.arange(first, min(rows, first + part_rows))
        content = parts.files(varied(measured, indices, np.random.default_rng(number)), run)
        for table, place in places.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content[table])


def rendered() -> pa.Table:
    """Staged rows of the rendered faces, of an image without a face and of one with an error."""
    network, faces = SegFaceNetwork(CHECKPOINT.name, device="cpu"), []
    source = FetchedImage(0, 0, SourceImage("", ""), {})
    for file in corpus.RENDERED:
        with Image.open(file) as image:
            crop, size = crop_image(image.convert("RGB"), CHECKPOINT), image.size
        ((labels, confidence),) = network.parse(crop.pixels[None]).masks()
        times = SIDE // len(labels)
        pasted = Pasted(labels.repeat(times, 0).repeat(times, 1), None, crop.transform / times)
        faces.append(Face(source, size, 1, 0, crop, labels, confidence, pasted))
    rows = [schema.row(face, DATASET) for face in [*faces * FACES, Face(source), Face(source, error="truncated")]]
    step = SIDE // STORED_SIDE
    for row, face in zip(rows, faces * FACES, strict=False):
        assert face.pasted is not None
        row["mask"] = {"bytes": masks.encode(np.ascontiguousarray(face.pasted.labels[::step, ::step]))}
    return schema.to_table(rows, DATASET)


def varied(measured: pa.Table, indices: np.ndarray, random: np.random.Generator) -> pa.Table:
    """Staged rows for images of these numbers: of random ones of the measured rows, with other statistics."""
    rows = measured.take(random.integers(measured.num_rows, size=len(indices)))
    changed = {
        "image_id": pa.array([f"{index}.jpg" for index in indices]),
        "uri": pa.array([f"s3://bucket/faces/{index}.jpg" for index in indices]),
        "unit": pa.array(indices // MAX_UNIT, pa.int32()),
        "seq": pa.array(indices % MAX_UNIT, pa.int32()),
    }
    names = [column for each in statistics.STATISTICS for column in each.columns(DATASET.class_names)]
    for name in names:
        kind = rows.schema.field(name).type
        if name in _SIZES or kind == pa.uint8():
            continue
        values = rows[name].to_numpy() * random.uniform(LEAST, 1, len(indices))
        changed[name] = pa.array(np.round(values) if kind == pa.int32() else values, kind, from_pandas=True)
    for name in DATASET.class_names:
        shares = changed[f"px_{name}"].to_numpy(zero_copy_only=False) / rows["mask_pixels"].to_numpy()
        changed[f"frac_{name}"] = pa.array(shares, pa.float32(), from_pandas=True)
    columns = [changed.get(field.name, rows[field.name]) for field in rows.schema]
    return pa.table(columns, rows.schema.names).cast(rows.schema)


def answer(out: Path, sql: str) -> pa.Table:
    return query(str(out), sql).read_all()


def plain(sql: str) -> pa.Table:
    """DuckDB's own answer, with as many threads, in a connection of its own."""
    with duckdb.connect(config={"threads": THREADS}) as connection:
        return connection.sql(sql).to_arrow_table()


def questions(out: Path) -> dict[str, tuple[str, str]]:
    """By table or view, a question of three classes for `answer`, and the same for `plain`."""
    stats, shapes = (f"read_parquet('{out}/{table}/*.parquet')" for table in (schema.STATS, schema.SHAPES))
    (hair,) = plain(f"select quantile_cont(px_hair, {QUANTILE}) from {stats} where px_eye_g = 0")[0].to_pylist()
    where = f"px_hair > {hair} and px_eye_g = 0 and frac_skin > "
    (skin,) = plain(f"select quantile_cont(frac_skin, {QUANTILE}) from {stats} where {where} 0")[0].to_pylist()
    where += str(skin)
    both = f"{stats} as stats join {shapes} as shapes using (unit, seq, face)"
    eye = "case when swapped & 2 > 0 then px_r_eye else px_l_eye end"
    return {
        "stats": (
            f"select unit, seq, face from stats where {where}",
            f"select unit, seq, face from {stats} where {where}",
        ),
        "faces": (
            f"select unit, seq, face, x_nose from faces where {where}",
            f"select unit, seq, face, x_nose from {both} where {where}",
        ),
        "common": (
            f"select unit, seq, face, px_eye_left from common where {where.replace('px_eye_g', 'px_glasses')}",
            f"select unit, seq, face, {eye} as px_eye_left from {both} where {where}",
        ),
    }


def main(rows: str = str(ROWS), rounds: str = str(ROUNDS), folder: str = "") -> None:
    with contextlib.ExitStack() as stack:
        out = Path(folder or stack.enter_context(tempfile.TemporaryDirectory())).absolute() / f"out-{rows}"
        write(out, int(rows))
        print_sizes(out, int(rows))
        asked = questions(out)
        for name, (ours, theirs) in asked.items():
            print_ratio(name, out, ours, theirs, int(rounds))
        print_processes(out, asked["stats"][0], int(rounds))


def print_sizes(out: Path, rows: int) -> None:
    for table in reversed(schema.TABLES):
        size = sum(file.stat().st_size for file in (out / table).iterdir())
        print(f"{table}: {size / rows:.1f} bytes per row" + (", with tiny PNG" if table == schema.MASKS else ""))


def print_ratio(name: str, out: Path, ours: str, theirs: str, rounds: int) -> None:
    order = [(key, "ascending") for key in schema.KEY]
    found = answer(out, ours).replace_schema_metadata().sort_by(order)
    if not found.equals(plain(theirs).sort_by(order)):
        raise SystemExit(f"{name}: query and DuckDB give different answers")
    told = []
    for kind, clock in {"": time.perf_counter, "CPU ": time.process_time}.items():
        ways = {"query": lambda: answer(out, ours), "DuckDB": lambda: plain(theirs)}
        times = paired({way: timed(work, clock=clock) for way, work in ways.items()}, rounds)
        medians = ", ".join(f"{way} {1000 * times.median(way):.0f} {kind}ms" for way in ways)
        told.append(f"{medians}, ratio {times.ratio('query', 'DuckDB'):.2f}")
    print(f"{name}, {found.num_rows} rows: {'; '.join(told)}", flush=True)


def print_processes(out: Path, sql: str, rounds: int) -> None:
    """The command as a process, and what of it is starting Python and importing."""
    lines = {
        "segface-batch query": ["-m", "segface_batch.cli", "query", str(out), sql],
        "its imports": ["-c", "import segface_batch.cli, segface_batch.curate.query"],
        "Python alone": ["-c", "pass"],
    }
    run = partial(subprocess.run, check=True, stdout=subprocess.DEVNULL)
    found = paired(
        {name: timed(lambda line=line: run([sys.executable, *line])) for name, line in lines.items()}, rounds
    )
    print(", ".join(f"{name} {found.median(name):.2f} s" for name in lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
