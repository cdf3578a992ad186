"""The regular files of a folder, or the objects below a prefix, streamed in a stable order.

A local folder is searched here and not by fsspec or Ray, which follow symbolic links (a loop gives each image forty
times), open FIFOs and hold the whole listing in memory.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from segface_batch import storage
from segface_batch.inputs.image import printable

#: Longer suffixes are counted together: they come from names with dots in them.
_LONGEST_SUFFIX = 12


class Found(NamedTuple):
    """A file: its path below the input, its place, its suffix in lower case, its bytes."""

    name: str
    place: str
    suffix: str
    n_bytes: int


def files(place: str, skipped: Counter[str]) -> Iterator[Found]:
    """All files but hidden ones; `skipped` counts what else there is.  PermissionError for what cannot be listed."""
    path = storage.local_path(place)
    if path is not None:
        yield from _local(path, path, skipped)
        return
    start = len(place.rstrip("/")) + 1
    for entry in storage.listing(place):
        name = entry.place[start:]
        if name.startswith(".") or "/." in name:
            skipped["hidden"] += 1
        else:
            yield Found(name, entry.place, suffix_of(name), entry.n_bytes)


def suffix_of(name: str) -> str:
    """ ".jpg" of "a/b.JPG", with what is compressed before it (".tar.gz"); "" where there is none."""
    stem, suffix = os.path.splitext(name)
    return (".tar" + suffix if stem.lower().endswith(".tar") else suffix).lower()


def kind(suffix: str) -> str:
    """What files of that suffix count as in `skipped`."""
    if not suffix or len(suffix) > _LONGEST_SUFFIX:
        return "files of other kinds" if suffix else "files without suffix"
    return f"{printable(suffix)} files"


def _local(folder: str, root: str, skipped: Counter[str]) -> Iterator[Found]:
    with os.scandir(folder) as children:
        entries = sorted(children, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith("."):
            skipped["hidden"] += 1
        elif entry.is_symlink():
            skipped["symbolic links"] += 1
        elif entry.is_dir():
            yield from _local(entry.path, root, skipped)
        elif not entry.is_file():
            skipped["pipes or devices"] += 1
        else:
            name = printable(entry.path[len(root.rstrip("/")) + 1 :])
            yield Found(name, _place(entry.path), suffix_of(entry.name), entry.stat().st_size)


def _place(path: str) -> str:
    """The path itself, or a file:// URL (which keeps every byte) where it is no UTF-8."""
    return path if printable(path) == path else Path(path).as_uri()
