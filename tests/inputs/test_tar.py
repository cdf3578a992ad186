from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path
from typing import Literal

import pytest

from segface_batch.inputs import tar
from segface_batch.inputs.tar import CUT, DAMAGED, Index, Member
from tests.inputs.archives import tar_file

KINDS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def indexed(content: bytes) -> Index:
    return tar.read_index(io.BytesIO(content), len(content))


def archive(*entries: tuple[str, bytes]) -> bytes:
    """An archive of entries of types that `tarfile` does not write."""
    sink = io.BytesIO()
    for number, (name, kind) in enumerate(entries):
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "a.jpg"
        member.size = 600 if member.isreg() else 0
        sink.write(member.tobuf(tarfile.GNU_FORMAT))
        sink.write(bytes([number + 1]) * member.size + bytes(-member.size % 512))
    return sink.getvalue() + bytes(1024)


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_members_are_found_as_tarfile_finds_them(tmp_path: Path, kind: int) -> None:
    names = ["a.jpg", f"{'d' * 90}/{'e' * 90}/b.jpg", "../../etc/c.jpg", "/abs/d.jpg", "e\n.jpg", "empty.jpg"]
    if kind != tarfile.USTAR_FORMAT:
        names += ["l" * 300 + ".jpg", "日本.jpg"]
    files = [(name, bytes([number + 1]) * number * 300) for number, name in enumerate(reversed(names))]
    path = tar_file(tmp_path / "f.tar", files, kind)
    with tarfile.open(path) as expected:
        golden = [Member(member.name, member.offset_data, member.size, "") for member in expected]
    content = path.read_bytes()
    assert [member.name for member in golden] == names[::-1]
    assert indexed(content) == Index(golden, None)
    assert [content[m.offset : m.offset + m.n_bytes] for m in golden] == [data for _, data in files]
    assert all(tar.is_header(content[m.offset - 512 : m.offset], m.n_bytes) for m in golden)
    assert not any(tar.is_header(content[m.offset - 512 : m.offset], m.n_bytes + 1) for m in golden)


def test_the_bodies_are_not_read(tmp_path: Path) -> None:
    path = tar_file(tmp_path / "f.tar", [("a.jpg", bytes(10_000_000)), ("b.jpg", b"1")])
    counted = _Counted(path.read_bytes())
    assert len(tar.read_index(counted, path.stat().st_size).members) == 2
    assert counted.count < 20_000


class _Counted(io.BytesIO):
    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


def test_members_that_are_not_regular_files_have_a_kind() -> None:
    types = {
        "a.jpg": tarfile.REGTYPE, "b.jpg": tarfile.AREGTYPE, "c.jpg": tarfile.CONTTYPE, "d.jpg": tarfile.SYMTYPE,
        "e.jpg": tarfile.LNKTYPE, "f.jpg": tarfile.CHRTYPE, "g.jpg": tarfile.FIFOTYPE, "h.jpg": tarfile.DIRTYPE,
        "i.jpg": tarfile.GNUTYPE_SPARSE, "j.jpg": b"V", "k.jpg": tarfile.REGTYPE,
    }  # fmt: skip
    found = indexed(archive(*types.items()))
    assert [(member.name, member.kind) for member in found.members] == [
        ("a.jpg", ""),
        ("b.jpg", ""),
        ("c.jpg", ""),
        ("d.jpg", "symbolic links"),
        ("e.jpg", "hard links"),
        ("f.jpg", "pipes or devices"),
        ("g.jpg", "pipes or devices"),
        ("h.jpg", "folders"),
        ("i.jpg", "sparse files"),
        ("j.jpg", "unknown tar entries"),
        ("k.jpg", ""),
    ]
    assert found.end is None


def test_pax_records_are_obeyed(tmp_path: Path) -> None:
    path = tmp_path / "f.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"path": "global.jpg"}) as made:
        for name, headers in (("a.jpg", {"GNU.sparse.major": "1"}), ("b.jpg", {"size": "3", "path": "c=d.jpg"})):
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = 3, headers
            made.addfile(member, io.BytesIO(b"123"))
    found = indexed(path.read_bytes())
    assert [(member.name, member.kind) for member in found.members] == [("a.jpg", "sparse files"), ("c=d.jpg", "")]


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
@pytest.mark.parametrize("n_bytes", [8 * 2**30 - 1, 8 * 2**30])
def test_a_member_of_8_gib_and_all_after_it_are_found(tmp_path: Path, kind: Literal[1, 2], n_bytes: int) -> None:
    """From this size on the field of the header is too small: PAX has it in a record, GNU in base 256."""
    large, small = tarfile.TarInfo("large.jpg"), tarfile.TarInfo("small.jpg")
    large.size, small.size = n_bytes, 1
    start = large.tobuf(kind)
    with open(tmp_path / "f.tar", "wb") as file:
        file.write(start + b"1")
        at = len(start) + -(-n_bytes // 512) * 512
        file.seek(at)  # the rest is a hole
        file.write(small.tobuf(kind) + b"1".ljust(512, b"\0") + bytes(1024))
    found = [Member("large.jpg", len(start), n_bytes, ""), Member("small.jpg", at + 512, 1, "")]
    with open(tmp_path / "f.tar", "rb") as file:
        assert tar.read_index(file, (tmp_path / "f.tar").stat().st_size) == Index(found, None)


def test_an_archive_that_is_cut_says_so_and_keeps_what_is_whole(tmp_path: Path) -> None:
    content = tar_file(tmp_path / "f.tar", [("a.jpg", b"1" * 600), ("b.jpg", b"2" * 600)]).read_bytes()
    first, second = Member("a.jpg", 512, 600, ""), Member("b.jpg", 2048, 600, "")
    assert indexed(content) == Index([first, second], None)
    for length, members in ((3072, 2), (2649, 2), (2048, 2), (2047, 1), (1536, 1), (600, 1), (500, 0), (0, 0)):
        assert indexed(content[:length]) == Index([first, second][:members], CUT)
    assert indexed(content[:1536] + b"\1" * 2000) == Index([first], DAMAGED)
    assert indexed(b"<html>" * 1000) == Index([], DAMAGED)


def test_archives_one_after_another_are_all_read_and_rubbish_after_the_end_is_none(tmp_path: Path) -> None:
    one = tar_file(tmp_path / "f.tar", [("a.jpg", b"1")]).read_bytes()
    two = indexed(one + one)
    assert [member.offset for member in two.members] == [512, len(one) + 512]
    assert two.end is None
    assert indexed(one + one[:1024]) == Index(two.members, CUT)
    assert indexed(one + b"rubbish" * 100) == Index([Member("a.jpg", 512, 1, "")], None)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_claims_gigabytes_or_less_than_nothing_is_damage(kind: bytes) -> None:
    for size in (2**33, -512):
        member = tarfile.TarInfo("a.jpg")
        member.size, member.type = size, kind
        header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
        assert indexed(bytes(header) + bytes(4096)) == Index([], DAMAGED)


@pytest.mark.parametrize(("n_bytes", "found"), [(2**20, Index([Member("a.jpg", 2**20 + 1024, 0, "")], None)),
                                                (2**20 + 1, Index([], DAMAGED))])  # fmt: skip
def test_a_header_of_a_mebibyte_is_read_and_one_of_a_byte_more_is_damage(n_bytes: int, found: Index) -> None:
    header = tarfile.TarInfo("h")
    header.type, header.size = tarfile.XHDTYPE, n_bytes
    record = f"{n_bytes} comment=".encode().ljust(n_bytes - 1, b"x") + b"\n"
    content = header.tobuf() + record.ljust(-(-n_bytes // 512) * 512, b"\0") + tarfile.TarInfo("a.jpg").tobuf()
    assert indexed(content + bytes(1024)) == found


@pytest.mark.parametrize(
    "record", [b"99 path=a.jpg\n", b"0 path=a.jpg\n", b"path=a.jpg\n", b"14 size=minus\n", b"11 size=1_\n"]
)
def test_pax_records_that_are_none_are_damage(record: bytes) -> None:
    header = tarfile.TarInfo("h")
    header.type, header.size = tarfile.XHDTYPE, len(record)
    member = tarfile.TarInfo("a.jpg")
    member.size = 1
    blocks = [header.tobuf(), record.ljust(512, b"\0"), member.tobuf(), b"1".ljust(512, b"\0"), bytes(1024)]
    assert indexed(b"".join(blocks)) == Index([], DAMAGED)


def test_mutated_archives_end_and_raise_nothing(tmp_path: Path) -> None:
    files = [(f"{'n' * (30 * number)}.jpg", bytes(number * 100)) for number in range(8)]
    seeds = [tar_file(tmp_path / f"{name}.tar", files, kind).read_bytes() for name, kind in list(KINDS.items())[1:]]
    seeds.append(archive(("a.jpg", tarfile.GNUTYPE_SPARSE), ("b.jpg", tarfile.REGTYPE)))
    chance = random.Random(1)
    for _ in range(1500):
        content = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(1, 20)):
            content[chance.randrange(len(content))] = chance.choice(b"\0\1 0178gxLS=\xff\x80")
        for at in range(0, len(content) - 511, 512):  # half of the headers get a right checksum
            if chance.random() < 0.5:
                block = content[at : at + 512]
                block[148:156] = b" " * 8
                content[at + 148 : at + 156] = b"%06o\0 " % sum(block)
        found = indexed(bytes(content[: chance.randrange(len(content))]))
        assert len(found.members) < 100
