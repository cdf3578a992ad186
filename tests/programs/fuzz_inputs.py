"""Plan and fetch damaged manifests, tar files and Parquet files, the same ones for the same seed.

    python -m tests.programs.fuzz_inputs --count 5000 --seed 0

Each is given by itself and in a folder.  It may be refused in one line; otherwise every image that is listed must come
back from the plan with bytes or an error word, and every row that was not touched must be listed.  A traceback, a
mutant that takes longer than SECONDS and memory that grows by more than MEGABYTES end the program with exit code 1.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import random
import resource
import shutil
import sys
import tarfile
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from segface_batch import storage
from segface_batch.errors import ERRORS, FatalError
from segface_batch.inputs import parquet, sources
from segface_batch.output import plan
from segface_batch.pipeline.fetch import fetch

#: A mutant is a few kB.
SECONDS, MEGABYTES = 20, 600

ROWS = 12
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

#: What people's lists have, and what parsers stumble over.
PIECES = (
    b"\0", b"\n", b"\r\n", b'"', b'""', b",", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"", b"-1", b"1e999", b"nan",
    b"://", b"http://[::1/x", b"htps://a/b", b"s3:///a", b"file://", b"../", b"?", b"#", b"%00", b"%", b"9" * 30,
    b"a" * 300, b"a" * 140_000,
)  # fmt: skip


def rows(rng: random.Random) -> dict[str, list[object]]:
    return {
        "uri": [f"{row}.jpg" for row in range(ROWS)],
        "image_id": [f"id {row}" if row % 3 else None for row in range(ROWS)],
        "box": [[row, 1, 2, rng.random()] if row % 4 else None for row in range(ROWS)],
        "tag": ["a, b" if row % 2 else "c" for row in range(ROWS)],
    }


def text(rng: random.Random) -> bytes:
    return "".join(f"{row}.jpg\n" for row in range(ROWS)).encode()


def table(rng: random.Random) -> bytes:
    lines = ["uri,image_id,box,tag"]
    for uri, name, box, tag in zip(*rows(rng).values(), strict=True):
        corners = " ".join(map(str, box)) if isinstance(box, list) else ""
        lines.append(f'{uri},{name or ""},{corners},"{tag}"')
    return "\n".join(lines).encode()


def to_parquet(columns: pa.Table, rng: random.Random) -> bytes:
    sink = io.BytesIO()
    pq.write_table(
        columns,
        sink,
        row_group_size=rng.choice((3, 5, 100)),
        compression=rng.choice(("none", "snappy", "zstd")),
        use_dictionary=rng.random() < 0.5,
        write_statistics=rng.random() < 0.8,
        write_page_checksum=rng.random() < 0.3,
    )
    return sink.getvalue()


def manifest(rng: random.Random) -> bytes:
    return to_parquet(pa.table(rows(rng)), rng)


def faces(rng: random.Random) -> bytes:
    cells = [{"bytes": bytes([row]) * 50, "path": f"{row}.jpg"} for row in range(ROWS)]
    for row in rng.sample(range(ROWS), rng.choice((0, 2, ROWS))):
        cells[row]["bytes"] = None
    return to_parquet(pa.table({"image": pa.array(cells, IMAGE), "box": rows(rng)["box"]}), rng)


def archive(rng: random.Random) -> bytes:
    sink = io.BytesIO()
    kind = rng.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    with tarfile.open(fileobj=sink, mode="w", format=kind) as out:
        for row in range(ROWS):
            member = tarfile.TarInfo(
                f"{'d' * 90 * (row % 3)}/é{row}.jpg" if kind != tarfile.USTAR_FORMAT else f"{row}.jpg"
            )
            member.size = row * 100
            out.addfile(member, io.BytesIO(bytes([row]) * member.size))
    return sink.getvalue()


#: By name and suffix of the file.
SEEDS: dict[str, Callable[[random.Random], bytes]] = {
    "text.txt": text, "table.csv": table, "manifest.parquet": manifest, "faces.parquet": faces, "archive.tar": archive,
}  # fmt: skip


def mutated(content: bytes, rng: random.Random) -> bytes:
    """The content with one to four changes: bits, bytes, pieces put in, taken out, doubled or swapped, a cut end."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(data) + 1)
        if rng.random() < 0.3:  # footers and headers are small and matter most
            at = rng.choice(
                (len(data) - rng.randrange(min(600, len(data) + 1)), rng.randrange(min(200, len(data) + 1)))
            )
        end = min(len(data), at + rng.choice((1, 1, 4, 16, 512)))
        match rng.randrange(7):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at:end] = rng.randbytes(end - at)
            case 2:
                data[at:at] = rng.choice(PIECES)
            case 3:
                del data[at:end]
            case 4:
                data[at:at] = data[at:end] * rng.choice((1, 1, 50))
            case 5:
                data[at:end] = bytes(end - at)
            case _:
                if rng.random() < 0.2:
                    del data[at:]
                else:
                    data[at:end] = rng.choice((b"\xff", b"\x7f", b"\x80", b"9")) * (end - at)
    return bytes(data)


def tried(place: Path, folder: Path, **options: object) -> tuple[str, set[str]]:
    """What came of an input: "refused", or "planned" with the ids of its images.  AssertionError for lost rows."""
    skipped: Counter[str] = Counter()
    try:
        carried, found = sources.list_images([str(place)], skipped, **options)  # pyright: ignore[reportArgumentType]
        listed = list(found)
        name = plan.write(str(folder), listed, skipped, 7, carried=carried) if listed else None
    except (ValueError, OSError) as error:
        if "\n" in str(error) or isinstance(error, UnicodeError):
            raise AssertionError("not refused in one line with a hint") from error
        return "refused", set()
    planned = plan.read(str(folder), [name] if name else [])
    assert planned.images == len(listed), f"{len(listed)} listed, {planned.images} planned"
    count = 0
    for part in planned.parts:
        for position in range(len(part.sizes)):
            unit = plan.read_unit(str(folder), part.file, position)
            try:
                answers = fetch(unit, allow_unreadable=True)
            except FatalError as error:
                raise AssertionError(f"one image ends the run: {error}") from error
            for answer in answers:
                assert (answer.data is None) == (answer.error in ERRORS), answer
            count += len(answers)
    assert count == len(listed), f"{len(listed)} listed, {count} fetched"
    return "planned", {image.uri for image in listed}


def untouched(name: str, before: bytes, after: bytes) -> set[str]:
    """The file names in the lines that a change of a text left as they were."""
    if name == "table.csv" and after.splitlines()[:1] != before.splitlines()[:1]:
        return set()
    both = {*before.splitlines()} & {*after.splitlines()} if name.endswith((".txt", ".csv")) else set()
    return {line.partition(b",")[0].decode() for line in both if line[:1].isdigit()}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, default=5000, help="mutants in all (default: %(default)s)")
    options.add_argument("--seed", type=int, default=0, help="of the first mutant (default: %(default)s)")
    chosen = options.parse_args()
    outcomes: Counter[str] = Counter()
    failed = 0
    start = 0
    for number in range(chosen.seed, chosen.seed + chosen.count):
        rng = random.Random(number)
        name = rng.choice(list(SEEDS))
        content = SEEDS[name](rng)
        changed = mutated(content, rng)
        with tempfile.TemporaryDirectory() as root:
            folder, file = Path(root) / "in", Path(root) / "in" / "sub" / name
            file.parent.mkdir(parents=True)
            for row in range(ROWS):
                (file.parent / f"{row}.jpg").write_bytes(bytes([row]))
            file.write_bytes(changed)
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            try:
                parquet.open_once.cache_clear()
                outcome, uris = tried(file, Path(root) / "plan")
                if outcome == "planned":
                    lost = {f"{file.parent}/{row}" for row in untouched(name, content, changed)} - uris
                    assert not lost, f"rows are lost: {sorted(lost)}"
                for row in range(ROWS):
                    (file.parent / f"{row}.jpg").unlink()
                in_folder, _ = tried(folder, Path(root) / "plan2")
                outcomes[f"{name}: {outcome}, {in_folder} in a folder"] += 1
            except Exception:
                failed += 1
                kept = Path(tempfile.gettempdir()) / f"fuzz-{number}-{name}"
                shutil.copy(file, kept)
                print(f"mutant {number}, kept as {kept}", file=sys.stderr)
                traceback.print_exc()
            finally:
                faulthandler.cancel_dump_traceback_later()
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        start = start or used
        if used > start + MEGABYTES:
            print(f"mutant {number}: {used} MB of memory, {start} MB at first", file=sys.stderr)
            return 1
    for outcome, count in sorted(outcomes.items()):
        print(f"{count:6} {outcome}")
    print(f"{chosen.count} mutants, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    storage.configure(None)
    sys.exit(main())
