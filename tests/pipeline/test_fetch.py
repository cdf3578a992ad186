from __future__ import annotations

import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segface_batch import storage
from segface_batch.errors import FatalError
from segface_batch.inputs import parquet, sources
from segface_batch.inputs.fetch import MAX_BYTES, Answer
from segface_batch.inputs.image import SourceImage
from segface_batch.output import plan, run as runs
from segface_batch.output.plan import Plan
from segface_batch.pipeline.fetch import fetch
from segface_batch.pipeline.metrics import Clock
from segface_batch.pipeline.resources import Resources
from segface_batch.pipeline.worker import Worker
from tests import drivers
from tests.inputs.archives import IMAGE, tar_file
from tests.s3_server import S3Server


class Planned:
    """An input planned as a run with that `output` does it, and its units."""

    def __init__(self, folder: Path, *inputs: Path | str, **options: Any) -> None:
        self.output = str(folder / "out")
        self.folder = runs.plan_folder(self.output)
        skipped: Counter[str] = Counter()
        carried, found = sources.list_images([str(place) for place in inputs], skipped, **options)
        name = plan.write(self.folder, found, skipped, 16_384, carried=carried)
        self.plan: Plan = plan.read(self.folder, [name])

    def work(self, position: int = 0, seqs: list[int] | None = None) -> dict[str, Any]:
        """A row of `pipeline.work.SCHEMA`."""
        row = {"file": self.plan.parts[0].file, "position": position, "seqs": seqs, "any_length": False}
        return row | {"target": f"{self.output}/unit-{position}.arrow"}

    def unit(self, position: int = 0, seqs: list[int] | None = None) -> plan.Unit:
        return plan.read_unit(self.folder, self.plan.parts[0].file, position, seqs)

    def answers(self, position: int = 0, seqs: list[int] | None = None, **settings: Any) -> list[tuple[Any, ...]]:
        """image_id, data and error of each image."""
        unit = self.unit(position, seqs)
        found = zip(unit.images, fetch(unit, **settings), strict=True)
        return [(image.image_id, answer.data, answer.error) for image, answer in found]

    def fatal(self, position: int = 0, **settings: Any) -> str:
        """What stops the run."""
        with pytest.raises(FatalError) as caught:
            fetch(self.unit(position), **settings)
        assert "\n" not in str(caught.value)
        return str(caught.value)


def folder_of(root: Path, count: int, suffix: str = ".jpg") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (root / f"{number:03d}{suffix}").write_bytes(b"%d" % number)
    return root


def test_a_unit_has_its_images_and_their_columns_in_order(tmp_path: Path) -> None:
    folder_of(tmp_path, 2)
    (tmp_path / "m.csv").write_text('uri,image_id,landmarks,who\n001.jpg,one,"1 2",x\n000.jpg,,,\n')
    planned = Planned(tmp_path, tmp_path / "m.csv", columns=("who",), placed_by=("landmarks",))
    images = (
        SourceImage("one", f"{tmp_path}/001.jpg", [1.0, 2.0], 1, carried=("x",)),
        SourceImage("000.jpg", f"{tmp_path}/000.jpg", None, 1, carried=(None,)),
    )
    assert planned.unit() == plan.Unit(0, (0, 1), images, pa.schema([("who", pa.string())]))
    assert fetch(planned.unit()) == [Answer(b"1"), Answer(b"0")]
    assert planned.unit(0, [1]).seqs == (1,)


def test_a_file_that_cannot_be_read_has_an_error_word(tmp_path: Path) -> None:
    files = folder_of(tmp_path / "in", 9)
    planned = Planned(tmp_path, files)
    (files / "000.jpg").unlink()
    (files / "001.jpg").write_bytes(b"longer")
    (files / "002.jpg").unlink()
    (files / "002.jpg").mkdir()
    (files / "003.jpg").unlink()
    os.mkfifo(files / "003.jpg")
    os.truncate(files / "004.jpg", MAX_BYTES + 1)  # a hole
    (files / "005.jpg").unlink()
    (files / "005.jpg").symlink_to("005.jpg")
    assert planned.answers() == [
        ("000.jpg", None, "missing"),
        ("001.jpg", None, "changed"),
        ("002.jpg", None, "not_a_file"),
        ("003.jpg", None, "not_a_file"),
        ("004.jpg", None, "too_large"),
        ("005.jpg", None, "unfetchable"),
        ("006.jpg", b"6", None),
        ("007.jpg", b"7", None),
    ]
    assert planned.answers(1) == [("008.jpg", b"8", None)]


def test_only_the_images_asked_for_are_fetched(tmp_path: Path) -> None:
    planned = Planned(tmp_path, folder_of(tmp_path / "in", 12))
    assert planned.answers(1, [3, 0]) == [("008.jpg", b"8", None), ("011.jpg", b"11", None)]
    assert planned.answers(1, []) == []
    shard = tar_file(tmp_path / "s.tar", [(f"{number}.jpg", b"%d" % number) for number in range(5)])
    assert Planned(tmp_path, shard).answers(0, [1, 3]) == [("s.tar/1.jpg", b"1", None), ("s.tar/3.jpg", b"3", None)]


def test_members_of_a_tar_file_are_read_by_one_request(tmp_path: Path) -> None:
    files = [(f"{'d' * 40 * number}/{number}.jpg", b"%d" % number * 700) for number in range(10)]
    files[5:5] = [("5.json", b"{}" * 3000)]
    planned = Planned(tmp_path, tar_file(tmp_path / "s.tar", files, kind=2))
    expected = [(f"s.tar/{name}", data, None) for name, data in files if name.endswith("jpg")]
    assert planned.plan.parts[0].sizes == (8, 2)
    assert planned.answers(0) + planned.answers(1) == expected


def test_members_that_are_cut_off_or_have_changed_are_errors(tmp_path: Path) -> None:
    files = [(f"{number}.jpg", b"%d" % number * 600) for number in range(3)]
    shard = tar_file(tmp_path / "s.tar", files)
    whole = shard.read_bytes()
    shard.write_bytes(whole[: 7 * 512 + 599])
    planned = Planned(tmp_path, shard)
    good = [("s.tar/0.jpg", b"0" * 600, None), ("s.tar/1.jpg", b"1" * 600, None)]
    assert planned.answers() == [*good, ("s.tar/2.jpg", None, "truncated")]
    other = tar_file(tmp_path / "other.tar", [files[0], ("1.jpg", b"x" * 601), files[2]])
    os.replace(other, shard)
    assert planned.answers()[:2] == [good[0], ("s.tar/1.jpg", None, "changed")]
    shard.write_bytes(whole[:1000])
    assert [error for _, _, error in planned.answers()] == ["changed", "changed", "truncated"]
    shard.unlink()
    assert [error for _, _, error in planned.answers()] == ["missing", "missing", "truncated"]


def test_a_member_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    shard = tmp_path / "s.tar"
    with open(shard, "wb") as file:
        member = tarfile.TarInfo("a.jpg")
        member.size = MAX_BYTES + 1
        file.write(member.tobuf(tarfile.USTAR_FORMAT))
        file.truncate(512 + MAX_BYTES + 512 + 1024)  # a hole
    assert Planned(tmp_path, shard).answers() == [("s.tar/a.jpg", None, "too_large")]


def test_rows_of_a_parquet_file_are_read_unit_by_unit(tmp_path: Path) -> None:
    images = [{"bytes": b"%d" % number, "path": f"{number}.jpg"} for number in range(400)]
    images[3] = {"bytes": None, "path": "3.jpg"}
    images[4] = {"bytes": b"", "path": "4.jpg"}
    pq.write_table(pa.table({"image": pa.array(images, IMAGE)}), tmp_path / "f.parquet", row_group_size=300)
    planned = Planned(tmp_path, tmp_path / "f.parquet")
    assert planned.plan.parts[0].sizes == (256, 44, 100)
    expected: list[Any] = [(image["path"], image["bytes"], None) for image in images]
    expected[3] = ("3.jpg", None, "missing")
    assert planned.answers(0) + planned.answers(1) + planned.answers(2) == expected
    assert planned.answers(1, [7, 40]) == [expected[263], expected[296]]


def test_a_parquet_file_that_was_replaced_or_damaged_gives_errors(tmp_path: Path) -> None:
    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"image": [bytes([row]) * 500 for row in range(3)]}), path, write_page_checksum=True)
    planned, size = Planned(tmp_path, path), path.stat().st_size
    content = path.read_bytes()
    for at in (10, 60):  # the header of the page, and the page
        path.write_bytes(content[:at] + b"\xff" * 8 + content[at + 8 :])
        assert [error for _, _, error in planned.answers()] == ["unreadable"] * 3
    pq.write_table(pa.table({"other": [bytes([row]) * 500 for row in range(3)]}), path, write_page_checksum=True)
    assert path.stat().st_size == size
    parquet.open_once.cache_clear()
    assert [error for _, _, error in planned.answers()] == ["unreadable"] * 3
    path.write_bytes(b"1" * (size - 1))
    parquet.open_once.cache_clear()
    assert [error for _, _, error in planned.answers()] == ["changed"] * 3
    path.write_bytes(b"1" * size)
    assert [error for _, _, error in planned.answers()] == ["unreadable"] * 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_that_may_not_be_read_are_forbidden(tmp_path: Path) -> None:
    files = folder_of(tmp_path / "in", 2)
    planned = Planned(tmp_path, files)
    (files / "000.jpg").chmod(0)
    assert planned.answers() == [("000.jpg", None, "forbidden"), ("001.jpg", b"1", None)]


def test_a_unit_without_a_readable_image_stops_the_run(tmp_path: Path) -> None:
    files = folder_of(tmp_path / "in", 15)
    planned = Planned(tmp_path, files)
    for number in range(15):
        (files / f"{number:03d}.jpg").unlink()
        (files / f"{number:03d}.jpg").symlink_to(f"{number:03d}.jpg")
    assert planned.fatal() == (
        f"all 8 images of unit 0 are unfetchable (first: {files}/000.jpg: Too many levels of symbolic links); "
        "check the disk, network or server and run again, or add --allow-unreadable to record them as errors"
    )
    lost = [(f"{number:03d}.jpg", None, "unfetchable") for number in range(15)]
    assert planned.answers(allow_unreadable=True) == lost[:8]
    assert planned.answers(1) == lost[8:]  # seven images may be bad luck
    (files / "003.jpg").unlink()
    assert planned.answers()[3] == ("003.jpg", None, "missing")


def test_an_error_known_from_the_plan_does_not_excuse_the_other_images(tmp_path: Path) -> None:
    files = [(f"{number:04d}.jpg", b"1") for number in range(576)]  # units of nine
    shard = tar_file(tmp_path / "s.tar", files)
    os.truncate(shard, 575 * 1024 + 512)
    planned = Planned(tmp_path, shard)
    shard.unlink()
    shard.symlink_to(shard)
    assert planned.fatal(63).startswith("all 8 images of unit 63 are unfetchable (first: ")
    answers = planned.answers(63, allow_unreadable=True)
    assert [error for _, _, error in answers] == ["unfetchable"] * 8 + ["truncated"]


def test_a_unit_of_missing_images_does_not_stop_the_run(tmp_path: Path) -> None:
    files = folder_of(tmp_path / "in", 8)
    planned = Planned(tmp_path, files)
    for path in files.iterdir():
        path.unlink()
    assert {error for _, _, error in planned.answers()} == {"missing"}


def test_a_scheme_that_is_unknown_is_an_error_row_and_no_secret_is_shown(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("nosuch://u:p@host/a.jpg?sig=s\n")
    planned = Planned(tmp_path, tmp_path / "m.txt")
    assert planned.answers() == [("nosuch://host/a.jpg?sig=REDACTED", None, "bad_uri")]


BAD_URIS = [
    "htps://u:p@example.org/x.jpg?sig=s", "http://[::1/x", "http://127.0.0.1:99999/x.jpg", f"http://{'a' * 70}.org/x", "http://",
    "gs://bucket/x.jpg", "http:///x?sig=s", "s3://", "s3://b", "FILE:///%00.jpg", "x" * 300,
]  # fmt: skip


@pytest.mark.parametrize("uri", BAD_URIS)
def test_a_bad_uri_is_one_row(tmp_path: Path, uri: str) -> None:
    for number in range(2):
        (tmp_path / f"{number}.jpg").write_bytes(b"1")
    (tmp_path / "m.csv").write_text(f"uri,image_id\n0.jpg,a\n{uri},b\n1.jpg,c\n")
    planned = Planned(tmp_path, tmp_path / "m.csv")
    assert planned.answers() == [("a", b"1", None), ("b", None, "bad_uri"), ("c", b"1", None)]
    assert planned.answers(0, [1]) == [("b", None, "bad_uri")]
    assert "sig=s" not in fetch(planned.unit())[1].message.replace("sig=REDACTED", "")


def test_a_unit_in_no_storage_stops_the_run_and_no_secret_is_shown(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("".join(f"gs://u:p@host/{number}.jpg?sig=s\n" for number in range(8)))
    planned = Planned(tmp_path, tmp_path / "m.txt")
    assert planned.fatal() == (
        "all 8 images of unit 0 are bad_uri (first: gs://: gs:// URLs: Please install gcsfs to access Google Storage); "
        "fix the input and run again, or add --allow-unreadable to record them as errors"
    )
    assert {error for _, _, error in planned.answers(allow_unreadable=True)} == {"bad_uri"}


def test_malformed_uris_stop_nothing_however_many(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("".join(f"http://h:99999/{number}.jpg\n" for number in range(8)))
    assert {error for _, _, error in Planned(tmp_path, tmp_path / "m.txt").answers()} == {"bad_uri"}


@pytest.fixture
def _no_options() -> Iterator[None]:
    yield
    storage.configure(None)


@pytest.mark.usefixtures("_no_options")
def test_credentials_that_are_refused_stop_the_run_where_they_count(tmp_path: Path, s3_server: S3Server) -> None:
    storage.configure(str(drivers.storage_options(s3_server.endpoint, tmp_path / "options.json", "nobody")))
    (tmp_path / "0.jpg").write_bytes(b"1")
    mixed, many, few = (tmp_path / name for name in ("mixed.txt", "many.txt", "few.txt"))
    mixed.write_text("0.jpg\nS3://inputs/a.jpg\n0.jpg\n")
    many.write_text("0.jpg\n" + "".join(f"s3://inputs/{number}.jpg\n" for number in range(63)))
    few.write_text("s3://inputs/a.jpg\n")
    assert [error for *_, error in Planned(tmp_path, mixed).answers()] == [None, "forbidden", None]
    for manifest, first in ((few, "a"), (many, "0")):
        planned = Planned(tmp_path, manifest)
        said = f"s3://inputs/{first}.jpg: InvalidAccessKeyId: check the credentials"
        assert planned.fatal().startswith(said)
        assert "forbidden" in {error for *_, error in planned.answers(allow_unreadable=True)}


def unit_of(*places: str) -> plan.Unit:
    """A unit of images at these places."""
    images = tuple(SourceImage(place, place, None, 1) for place in places)
    return plan.Unit(0, tuple(range(len(places))), images, pa.schema([]))


@pytest.mark.usefixtures("_no_options")
@pytest.mark.parametrize(
    ("there", "elsewhere", "stops"),
    [(1, 0, True), (1, 1, False), (2, 1, True), (7, 9, False), (8, 9, True)],
)
@pytest.mark.parametrize("schemes", [("s3",), ("s3", "S3A")], ids=str)
def test_a_storage_that_refuses_stops_the_run_where_it_has_most_of_a_unit_or_eight_images_of_it(
    schemes: tuple[str, ...], there: int, elsewhere: int, stops: bool, tmp_path: Path, s3_server: S3Server
) -> None:
    storage.configure(str(drivers.storage_options(s3_server.endpoint, tmp_path / "options.json", "nobody")))
    (tmp_path / "0.jpg").write_bytes(b"1")
    on_s3 = [f"{schemes[n % len(schemes)]}://inputs/{n}.jpg" for n in range(there)]
    unit = unit_of(*on_s3, *[str(tmp_path / "0.jpg")] * elsewhere)
    if stops:
        with pytest.raises(FatalError, match=r"s3://inputs/0.jpg: InvalidAccessKeyId: check the credentials"):
            fetch(unit)
    else:
        assert [answer.error for answer in fetch(unit)] == ["forbidden"] * there + [None] * elsewhere


@pytest.mark.usefixtures("_no_options")
def test_one_absent_bucket_is_one_row(tmp_path: Path, s3_server: S3Server) -> None:
    storage.configure(str(drivers.storage_options(s3_server.endpoint, tmp_path / "options.json")))
    s3_server.client().put_object(Bucket="inputs", Key="one.jpg", Body=b"1")
    (tmp_path / "m.txt").write_text("s3://inputs/one.jpg\ns3://no-such-bucket/a.jpg\n")
    planned = Planned(tmp_path, tmp_path / "m.txt")
    assert [answer[1:] for answer in planned.answers()] == [(b"1", None), (None, "missing")]
    assert [answer[1:] for answer in planned.answers(0, [1])] == [(None, "missing")]


def test_any_other_error_stops_the_run_in_one_line(tmp_path: Path) -> None:
    planned = Planned(tmp_path, folder_of(tmp_path / "in", 1))
    plan.read_part.cache_clear()
    lost = Path(planned.folder) / planned.plan.parts[0].file
    lost.unlink()
    worker = Worker(drivers.job(tmp_path / "in", planned.output), Resources(0, 1), None)
    with pytest.raises(FatalError) as caught:
        worker.fetch(planned.work(), Clock())
    assert str(caught.value) == f"fetching failed: FileNotFoundError: {lost}: No such file or directory"
