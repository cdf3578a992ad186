"""The regular files below a folder, or the objects below a prefix, streamed in a stable order.

This module walks local folders itself, because fsspec and Ray follow symbolic links (a loop gives each image forty
times), open FIFOs and hold the whole listing in memory.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from segface_batch import storage
from segface_batch.inputs.image import printable

#: Longer "suffixes" come from names with dots in them and are counted together.
_LONGEST_SUFFIX = 12

#: The folder that every output of ours has, and what `skipped` calls such an output.
_OUTPUT, _OUTPUTS = "_segface", "outputs of segface-batch"

#: Every ext4 disk has this folder, which only root may list.
_LOST = "lost+found"

#: What `skipped` calls files and folders that are removed or renamed while they are listed.
GONE = "gone while listed"


class Found(NamedTuple):
    """A file: its path below the input, its place, its suffix in lower case, its size in bytes."""

    name: str
    place: str
    suffix: str
    n_bytes: int


def list_files(place: str, skipped: Counter[str]) -> Iterator[Found]:
    """All files but hidden ones and what lies in outputs of ours; `skipped` counts the rest by kind.

    Files and folders that go while they are listed are counted, not missed.  PermissionError for a folder that cannot
    be listed: its images would be lost silently.
    """
    path = storage.local_path(place)
    if path is not None:
        yield from _list_local(path, skipped)
        return
    start = len(place.rstrip("/")) + 1
    output = None  # the prefix of the last output that was met; its other objects follow
    for entry in storage.list_objects(place):
        name = entry.place[start:]
        if output is not None and name.startswith(output):
            continue
        if (at := f"/{name}".find(f"/{_OUTPUT}/")) >= 0:
            output = name[:at]
            skipped[_OUTPUTS] += 1
        elif name.startswith(".") or "/." in name:
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


def _list_local(root: str, skipped: Counter[str]) -> Iterator[Found]:
    open_folders = [_entries(root, skipped)]
    while open_folders:
        entry = next(open_folders[-1], None)
        if entry is None:
            open_folders.pop()
        elif entry.name.startswith("."):
            skipped["hidden"] += 1
        elif entry.is_symlink():
            skipped["symbolic links"] += 1
        elif entry.is_dir():
            with _counting_gone(skipped):
                open_folders.append(_entries(entry.path, skipped))
        elif entry.is_file():
            name = printable(entry.path[len(root.rstrip("/")) + 1 :])
            with _counting_gone(skipped):
                yield Found(name, place_of(entry.path), suffix_of(entry.name), entry.stat().st_size)
        else:
            skipped["pipes or devices" if os.path.lexists(entry.path) else GONE] += 1


def _entries(folder: str, skipped: Counter[str]) -> Iterator[os.DirEntry[str]]:
    """What a folder holds, sorted by name; nothing for an output of ours."""
    try:
        with os.scandir(folder) as children:
            entries = sorted(children, key=lambda entry: entry.name)
    except PermissionError as error:
        if os.path.basename(folder) == _LOST:
            skipped[f"{_LOST} folders"] += 1
            return iter(())
        hint = "this folder cannot be listed; allow reading it, or give the folders beside it"
        raise PermissionError(error.errno, hint, folder) from None
    if any(entry.name == _OUTPUT and entry.is_dir() for entry in entries):
        skipped[_OUTPUTS] += 1
        return iter(())
    return iter(entries)


@contextlib.contextmanager
def _counting_gone(skipped: Counter[str]) -> Iterator[None]:
    """Count, under `skipped`, a file or folder that is removed or renamed while the folder is being filled."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
            raise
        skipped[GONE] += 1


def place_of(path: str) -> str:
    """The path or URL itself, or, for a path that is not UTF-8, a file:// URL, which keeps every byte."""
    return path if printable(path) == path else Path(path).as_uri()
