"""The published parts of an output as two data sets, `stats` and `masks`: nothing is read before somebody asks.

Statistics are published last, so the names of their parts say which parts of both tables are there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from segface_batch import storage
from segface_batch.output.schema import SCHEMA_VERSION, masks_schema
from segface_batch.storage import arrow

_FORMAT = ds.ParquetFileFormat()


@dataclass(frozen=True)
class Tables:
    """`run` is run.json's content as the Parquet metadata repeats it: class table, checkpoint, versions."""

    stats: ds.FileSystemDataset
    masks: ds.FileSystemDataset
    run: dict[str, Any]

    def masks_beside(self, stats_part: str) -> ds.FileSystemDataset:
        """The one part of `masks` that holds the rows of a part of `stats`."""
        at = self.stats.files.index(stats_part)
        return _dataset(self.masks.files[at : at + 1], self.masks.schema, self.masks.filesystem)


def open_tables(out: str) -> Tables:
    """The parts of `out` (a folder or fsspec URL) that are published now.

    FileNotFoundError where there is none yet or masks are missing, ValueError for an output of a newer version of
    this package or of another program; the errors of `storage`.
    """
    out = storage.absolute(out)
    filesystem, root = arrow.filesystem(out)
    parts = _parts(f"{out}/stats")
    if not parts:
        raise FileNotFoundError(
            f"'{out}/stats' has no Parquet part yet: 'segface-batch annotate INPUT {out}' is still running or was "
            "not started, or this is not the folder of an output"
        )
    if missing := sorted(set(parts) - set(_parts(f"{out}/masks"))):
        raise FileNotFoundError(f"'{out}/masks/{missing[0]}' is missing though stats has that part; copy both folders")
    schema = pq.read_schema(f"{root}/stats/{parts[0]}", filesystem=filesystem)
    return Tables(
        _dataset([f"{root}/stats/{part}" for part in parts], schema, filesystem),
        _dataset([f"{root}/masks/{part}" for part in parts], masks_schema(), filesystem),
        _run(f"{out}/stats/{parts[0]}", schema),
    )


def _parts(folder: str) -> list[str]:
    """Names of the Parquet files in a folder, sorted."""
    return [name for name in storage.list_names(folder, ".parquet") if "/" not in name and not name.startswith("_")]


def _dataset(paths: list[str], schema: pa.Schema, filesystem: pafs.FileSystem) -> ds.FileSystemDataset:
    return ds.FileSystemDataset.from_paths(paths, schema=schema, format=_FORMAT, filesystem=filesystem)


def _run(part: str, schema: pa.Schema) -> dict[str, Any]:
    content = (schema.metadata or {}).get(b"segface_batch")
    if content is None:
        raise ValueError(f"'{part}' was not written by segface-batch: its metadata lacks the key 'segface_batch'")
    run = json.loads(content)
    if run["schema_version"] > SCHEMA_VERSION:
        raise ValueError(
            f"'{part}' has schema version {run['schema_version']}, and this segface-batch reads up to "
            f"{SCHEMA_VERSION}; install a newer one, or read the Parquet files with any other tool"
        )
    return run
