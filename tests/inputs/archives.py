"""Tar files and Parquet columns that tests make."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

#: Hugging Face's `Image` feature as it is stored.
IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])


def tar_file(path: Path, files: Iterable[tuple[str, bytes]], kind: int = tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
