"""The regular files below a folder, or the objects below a prefix, streamed in a stable order.

This module walks local folders itself, because fsspec and Ray follow symbolic links (a loop gives each image forty
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

#: Longer "suffixes" come from names with dots in them and are counted together.
_LONGEST_SUFFIX = 12


class Found(NamedTuple):
    """A file: its path below the input, its place, its suffix in lower case, its size in bytes."""

    name: str
    place: str
    suffix: str
    n_bytes: int


def list_files(place: str, skipped: Counter[str]) -> Iterator[Found]:
    """All files but hidden ones; `skipped` counts the rest by kind.  PermissionError for what cannot be listed."""
    path = storage.local_path(place)
    if path is not None:
        yield from _list_local(path, path, skipped)
        return
    start = len(place.rstrip("/")) + 1
    for entry in storage.list_objects(place):
        name = entry.place[start:]
        if name.startswith(".") or "/." in name:
            skipped["hidden"] += 1
        else:
            yield Found(name, entry.place, suffix_of(name), entry.n_bytes)


def suffix_of(name: str) -> str:
    """In lower case: ".jpg" for "a/b.JPG", ".tar.gz" for a compressed tar file, "" where there is none."""
    stem, suffix = os.path.splitext(name)
    return (".tar" + suffix if stem.lower().endswith(".tar") else suffix).lower()


def kind_of(suffix: str) -> str:
    """The name under which `skipped` counts files of that suffix."""
    if not suffix or len(suffix) > _LONGEST_SUFFIX:
        return "files of other kinds" if suffix else "files without suffix"
    return f"{printable(suffix)} files"


def _list_local(folder: str, root: str, skipped: Counter[str]) -> Iterator[Found]:
    with os.scandir(folder) as children:
        entries = sorted(children, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith("."):
            skipped["hidden"] += 1
        elif entry.is_symlink():
            skipped["symbolic links"] += 1
        elif entry.is_dir():
            yield from _list_local(entry.path, root, skipped)
        elif not entry.is_file():
            skipped["pipes or devices"] += 1
        else:
            name = printable(entry.path[len(root.rstrip("/")) + 1 :])
            yield Found(name, _place(entry.path), suffix_of(entry.name), entry.stat().st_size)


def _place(path: str) -> str:
    """The path itself, or, where it is not UTF-8, a file:// URL, which keeps every byte."""
    return path if printable(path) == path else Path(path).as_uri()
