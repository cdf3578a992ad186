"""What a tar file holds and where, read from its headers alone; nothing is ever extracted.

USTAR, PAX and GNU archives, as POSIX.1-2017 (pax, "ustar Interchange Format") and the GNU tar manual ("Basic Tar
Format") describe them.  `tarfile` decodes a header block; the walk from one to the next is here, because
`tarfile.TarFile` reads what a header claims into memory, loops for ever over some damaged sparse members, and calls an
archive complete that ends in rubbish.
"""

from __future__ import annotations

import tarfile
from typing import BinaryIO, NamedTuple

BLOCK = 512

#: Longer names and attributes are no archive's; a header may claim any length.
_MAX_EXTENSION = 2**20

_WORDS = {
    tarfile.LNKTYPE: "hard links",
    tarfile.SYMTYPE: "symbolic links",
    tarfile.CHRTYPE: "pipes or devices",
    tarfile.BLKTYPE: "pipes or devices",
    tarfile.FIFOTYPE: "pipes or devices",
    tarfile.DIRTYPE: "folders",
    tarfile.GNUTYPE_SPARSE: "sparse files",
}


class Member(NamedTuple):
    """`kind` is "" for a regular file, or what it is else; a file whose bytes go beyond the archive's end is cut."""

    name: str
    offset: int
    n_bytes: int
    kind: str


class Index(NamedTuple):
    """The members in their order, and whether the archive ends as it should: CUT and DAMAGED say that it does not."""

    members: list[Member]
    end: str | None


#: Ends without an end mark, which is a block of zeros; members may be missing.
CUT = "cut"
#: What should be a header is none; what follows is lost.
DAMAGED = "damaged"


def index(file: BinaryIO, n_bytes: int) -> Index:
    """All members of an archive of so many bytes.  Zeros between members (archives one after another) are passed over,
    and what follows an end mark without being a header."""
    members: list[Member] = []
    at, ended = 0, False
    extended: dict[str, str] = {}
    while at + BLOCK <= n_bytes:
        file.seek(at)
        block = file.read(BLOCK)
        at += BLOCK
        if not any(block):
            ended = True
            continue
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            extension = _is_extension(header.type)
            n_body = header.size if extension or header.isreg() or header.type not in _WORDS else 0
            if not extension and "size" in extended and n_body:
                n_body = _number(extended["size"])
            if n_body < 0 or (extension and n_body > _MAX_EXTENSION):
                raise ValueError("no size of anything")
            if extension:
                extended |= _extension(header.type, file.read(n_body))
        except (tarfile.HeaderError, ValueError):
            return Index(members, None if ended else DAMAGED)
        ended = False
        if header.type == tarfile.GNUTYPE_SPARSE:
            at += _sparse_maps(file, block) * BLOCK
            n_body = header.size
        if not extension:
            kind = _WORDS.get(header.type, "" if header.isreg() else "unknown tar entries")
            if any(key.startswith("GNU.sparse") for key in extended):
                kind = "sparse files"
            members.append(Member(extended.get("path", header.name), at, n_body, kind))
            extended = {}
        at += -(-n_body // BLOCK) * BLOCK
    return Index(members, None if ended else CUT)


def is_header(block: bytes, n_bytes: int) -> bool:
    """True for the header block of a regular file of that many bytes."""
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return header.isreg() and header.size == n_bytes


def _is_extension(kind: bytes) -> bool:
    """True for an entry that only tells about the next one, or about all."""
    return kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, b"L", b"K")


def _extension(kind: bytes, data: bytes) -> dict[str, str]:
    """What the entry says about the next one, by PAX keyword."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": data.partition(b"\0")[0].decode("utf-8", "surrogateescape")}
    return _pax(data) if kind in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE) else {}


def _pax(data: bytes) -> dict[str, str]:
    """Records "LENGTH KEYWORD=VALUE\\n"; ValueError where they are none."""
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        length = _number(data[at : max(space, at)].decode("ascii"))
        keyword, equals, value = data[space + 1 : at + length].partition(b"=")
        if at + length > len(data) or not equals or not value.endswith(b"\n"):
            raise ValueError("no PAX record")
        found[keyword.decode("utf-8", "surrogateescape")] = value[:-1].decode("utf-8", "surrogateescape")
        at += length
    return found


def _number(digits: str) -> int:
    if not digits.isascii() or not digits.isdigit():
        raise ValueError(f"'{digits}' is no number")
    return int(digits)


def _sparse_maps(file: BinaryIO, header: bytes) -> int:
    """Blocks between the header of a GNU sparse member and its bytes."""
    count, more = 0, header[482:483] == b"\1"
    while more:
        block = file.read(BLOCK)
        count, more = count + 1, block[504:505] == b"\1"
    return count
