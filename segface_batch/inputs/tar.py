"""The members of a tar file and where they lie, read from its headers alone.  Nothing is ever extracted.

USTAR, PAX and GNU archives, as POSIX.1-2017 (pax, "ustar Interchange Format") and the GNU tar manual ("Basic Tar
Format") describe them.  `tarfile` decodes each header block; this module walks from one to the next itself, because
`tarfile.TarFile` reads whatever size a header claims into memory, loops forever over some damaged sparse members, and
takes an archive that ends in garbage for complete.
"""

from __future__ import annotations

import tarfile
from typing import BinaryIO, NamedTuple

BLOCK = 512

#: Bytes of an extension header.  A damaged one may claim any length; real names and attributes are shorter.
_MAX_EXTENSION = 2**20

#: What `skipped` calls the members that are not regular files.
_KINDS = {
    tarfile.LNKTYPE: "hard links",
    tarfile.SYMTYPE: "symbolic links",
    tarfile.CHRTYPE: "pipes or devices",
    tarfile.BLKTYPE: "pipes or devices",
    tarfile.FIFOTYPE: "pipes or devices",
    tarfile.DIRTYPE: "folders",
    tarfile.GNUTYPE_SPARSE: "sparse files",
}


class Member(NamedTuple):
    """A member and where its bytes begin.  `kind` is "" for a regular file, which may reach past the archive's end."""

    name: str
    offset: int
    n_bytes: int
    kind: str


class Index(NamedTuple):
    """The members in their order, and how the archive ends: None (as it should), CUT, DAMAGED or COMPRESSED."""

    members: list[Member]
    end: str | None


#: The end mark, a block of zeros, is missing; members may be missing too.
CUT = "cut"
#: A block that should be a header is not one; whatever follows is lost.
DAMAGED = "damaged"
#: It is a compressed file under the name of an archive.
COMPRESSED = "compressed"

#: The first bytes of gzip, bzip2, xz, Zstandard, LZ4 and ZIP files.
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"PK\3\4")


def read_index(file: BinaryIO, n_bytes: int) -> Index:
    """All members of an archive of `n_bytes`.

    Skips zeros between members (of concatenated archives), and anything but a header after an end mark.
    """
    if 0 < n_bytes < BLOCK:
        start = file.read(BLOCK)
        is_cut = is_header(start.ljust(BLOCK, b"\0"))  # its last fields are usually empty
        return Index([], CUT if is_cut else COMPRESSED if is_compressed(start) else DAMAGED)
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
            has_body = extension or header.isreg() or header.type not in _KINDS
            n_body = header.size if has_body else 0
            if has_body and not extension and "size" in extended:
                n_body = _number(extended["size"])  # the header's own is 0 from 8 GiB on
            if n_body < 0 or (extension and n_body > _MAX_EXTENSION):
                raise ValueError("invalid size")
            if extension:
                extended |= _extension(header.type, file.read(n_body))
        except (tarfile.HeaderError, ValueError):
            if at == BLOCK and is_compressed(block):
                return Index(members, COMPRESSED)
            return Index(members, None if ended else DAMAGED)
        ended = False
        if header.type == tarfile.GNUTYPE_SPARSE:
            at += _sparse_maps(file, block) * BLOCK
            n_body = header.size
        if not extension:
            kind = _KINDS.get(header.type, "" if header.isreg() else "unknown tar entries")
            if any(key.startswith("GNU.sparse") for key in extended):
                kind = "sparse files"
            members.append(Member(extended.get("path", header.name), at, n_body, kind))
            extended = {}
        at += -(-n_body // BLOCK) * BLOCK
    return Index(members, None if ended else CUT)


def is_compressed(start: bytes) -> bool:
    """True for the first bytes of a compressed file."""
    return start.startswith(_COMPRESSED)


def is_header(block: bytes, n_bytes: int | None = None) -> bool:
    """True for the header block of a regular file of that many bytes, or of any number."""
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return header.isreg() and n_bytes in (None, header.size)


def _is_extension(kind: bytes) -> bool:
    """True for an entry that only describes the next one, or all others."""
    return kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, b"L", b"K")


def _extension(kind: bytes, data: bytes) -> dict[str, str]:
    """What an extension says about the next entry, by PAX keyword."""
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": data.partition(b"\0")[0].decode("utf-8", "surrogateescape")}
    return _pax(data) if kind in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE) else {}


def _pax(data: bytes) -> dict[str, str]:
    """The records "LENGTH KEYWORD=VALUE\\n" by keyword.  ValueError if they are malformed."""
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        length = _number(data[at : max(space, at)].decode("ascii"))
        keyword, equals, value = data[space + 1 : at + length].partition(b"=")
        if at + length > len(data) or not equals or not value.endswith(b"\n"):
            raise ValueError("not a PAX record")
        found[keyword.decode("utf-8", "surrogateescape")] = value[:-1].decode("utf-8", "surrogateescape")
        at += length
    return found


def _number(digits: str) -> int:
    if not digits.isascii() or not digits.isdigit():
        raise ValueError(f"'{digits}' is not a number")
    return int(digits)


def _sparse_maps(file: BinaryIO, header: bytes) -> int:
    """The number of blocks between the header of a GNU sparse member and its bytes."""
    count, more = 0, header[482:483] == b"\1"
    while more:
        block = file.read(BLOCK)
        count, more = count + 1, block[504:505] == b"\1"
    return count
