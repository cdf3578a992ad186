"""The images of all inputs, streamed in a stable order.

An input is one of

- a folder or prefix with images, .tar files or .parquet files of images, searched recursively;
- a manifest, which lists images by place: .txt, .csv, or .parquet with a column `uri`;
- a .parquet file of images;
- a .tar file (WebDataset).

Any place may be a URL that fsspec knows.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from segface_batch import storage
from segface_batch.images.decode import SUFFIXES
from segface_batch.inputs import folders, manifest, named, parquet, tar
from segface_batch.inputs.folders import Found
from segface_batch.inputs.image import SourceImage, points_of, printable
from segface_batch.storage import ranged
from segface_batch.storage.redact import redacted

__all__ = ["SourceImage", "list_images"]

#: Number of files whose headers or footers are read at the same time.
_AHEAD = 8

#: Bytes read at a time for the headers of a tar file: locally little more than a header.  From a store a second
#: request costs as much as some MB (20-50 ms at 100 MB/s), so smaller members are read along with their headers.
_LOCAL_BLOCK, _REMOTE_BLOCK = 4 * 2**10, 4 * 2**20

#: When none of the first so many paths in a Parquet file of paths leads to a file, the folder is wrong, not the images.
_TRIED = 100

T = TypeVar("T")


class _Input(NamedTuple):
    """An input.  `kind` is "" for a folder, ".manifest" for a Parquet file that lists images, or else the suffix;
    `prefix` starts the ids of its images."""

    place: str
    kind: str
    name: str
    prefix: str
    n_bytes: int

    @property
    def file(self) -> Found:
        return Found(self.name, self.place, self.kind, self.n_bytes)


class _Wanted(NamedTuple):
    """What every image must come with, and the column of images in Parquet files."""

    carried: pa.Schema
    placed_by: Sequence[str]
    image_column: str | None


def list_images(
    inputs: Sequence[str],
    skipped: Counter[str],
    *,
    placed_by: Sequence[str] = (),
    columns: Sequence[str] = (),
    image_column: str | None = None,
) -> tuple[pa.Schema, Iterator[SourceImage]]:
    """The schema of the carried `columns`, and every image of the inputs.  `skipped` counts the rest by kind.

    A folder gives its loose images by path, then those in its .tar files, shard by shard, and those in its .parquet
    files only if it has no loose images; otherwise these files are `skipped`.  A folder whose .parquet files have no
    images but a column `uri` is a manifest in parts.  A manifest, a .tar and a .parquet file give their images in their
    own order.

    The id of an image is its path below the input; in a manifest `image_id`, or else `uri`; in a tar file
    SHARD.tar/MEMBER; in a Parquet file `image_id`, `key` or `__key__`, or else the `path` of Hugging Face's struct, or
    else FILE/ROW.  With several inputs, each id starts with the last component of its input.

    If `placed_by` names columns, every input must have one of them.  Manifests and Parquet files of images have columns
    to carry; an input that lacks one gives nulls.

    Only small things are read: listings, headers, footers.  A .tar or .parquet file in a folder that cannot be read
    gives one image with an `error` and the file's name, and a member that a .tar file's end cuts off gives one too.

    ValueError, in one line with a hint, for a wrong input or one that lacks something, at once or from the stream;
    OSError for one that cannot be listed or opened.
    """
    found = _find_inputs(inputs, image_column)
    carried = _carried_schema(found, columns, image_column)
    wanted = _Wanted(carried, placed_by, image_column)
    return carried, itertools.chain.from_iterable(_list_input(each, wanted, skipped) for each in found)


def _find_inputs(inputs: Sequence[str], image_column: str | None) -> list[_Input]:
    places = [folders.place_of(storage.absolute(source)) for source in inputs]
    names = [storage.name_of(place) for place in places]
    for name, count in Counter(names).items():
        if count > 1:
            both = " and ".join(redacted(place) for place, own in zip(places, names, strict=True) if own == name)
            raise ValueError(f"{both} have the same last component, which tells their images apart; rename one")
    found = []
    for place, name in zip(places, names, strict=True):
        kind, n_bytes = _find_kind(place, name, image_column)
        found.append(_Input(place, kind, printable(name), f"{printable(name)}/" if len(places) > 1 else "", n_bytes))
    return found


def _find_kind(place: str, name: str, image_column: str | None) -> tuple[str, int]:
    """What an input is (`_Input.kind`), and its size in bytes."""
    suffix, shown = folders.suffix_of(name), redacted(place)
    is_local = storage.local_path(place) is not None
    if not is_local and suffix not in (".txt", ".csv", ".parquet", ".tar"):
        if suffix.startswith(".tar.") or suffix == ".tgz":
            raise _compressed(shown)
        if place.lower().startswith(("http://", "https://")):
            raise ValueError(f"{shown} cannot be listed over HTTP; give a manifest of its images")
        return "", 0
    try:
        n_bytes = storage.get_size(place)
    except FileNotFoundError:
        if is_local or place.lower().startswith(("http://", "https://")):
            raise FileNotFoundError(f"no folder or file '{shown}'; check the path") from None
        n_bytes = None  # may be a prefix
    if n_bytes is None:
        return "", 0
    if suffix.startswith(".tar.") or suffix == ".tgz":
        raise _compressed(shown)
    if suffix not in (".txt", ".csv", ".parquet", ".tar"):
        raise ValueError(
            f"'{shown}' is neither a folder nor a .txt, .csv, .parquet or .tar file; give the folder it is in"
        )
    if suffix == ".parquet":
        names = parquet.open_file(place, n_bytes).schema_arrow
        if "uri" in names.names and image_column is None:
            return ".manifest", n_bytes
        if parquet.image_column(names, image_column, shown) is None:
            if "uri" in names.names:
                return ".manifest", n_bytes
            raise ValueError(
                f"{shown} has neither a column 'uri' nor one with images{_named(image_column)} "
                f"(it has: {', '.join(names.names)}); a manifest needs 'uri', and images are binary or a struct "
                "with 'bytes'"
            )
    return suffix, n_bytes


def _named(image_column: str | None) -> str:
    return "" if image_column is None else f" named '{image_column}'"


def _compressed(shown: str) -> ValueError:
    return ValueError(f"{shown} is compressed, so its members cannot be read one by one; decompress it to .tar first")


def _carried_schema(inputs: Sequence[_Input], columns: Sequence[str], image_column: str | None) -> pa.Schema:
    """The fields to carry, in the order of `columns`.  ValueError for one that no input has or that has two types."""
    if not columns:
        return pa.schema([])
    available = [(each.place, _read_columns(each, image_column)) for each in inputs]
    fields = []
    for column in columns:
        for place, schema in available:
            parquet.check_columns(schema, [column], place)
        types = {
            place: parquet.plain_type(schema.field(column).type)
            for place, schema in available
            if column in schema.names
        }
        if not types:
            names = sorted({name for _, schema in available for name in schema.names} - {*manifest.COLUMNS})
            raise ValueError(f"no input has a column '{column}'; there is: {', '.join(names) or 'none'}")
        if len(set(types.values())) > 1:
            both = ", ".join(f"{kind} in {redacted(place)}" for place, kind in types.items())
            raise ValueError(f"column '{column}' has several types ({both}); make them the same")
        fields.append(pa.field(column, next(iter(types.values()))))
    return pa.schema(fields)


def _read_columns(each: _Input, image_column: str | None) -> pa.Schema:
    """The columns of an input that may be carried."""
    if each.kind in (".txt", ".csv", ".manifest"):
        return manifest.read_columns(each.place, ".parquet" if each.kind == ".manifest" else each.kind, each.n_bytes)
    found = [each.file] if each.kind == ".parquet" else []
    if each.kind == "":
        found = (entry for entry in folders.list_files(each.place, Counter()) if entry.suffix == ".parquet")
    of_list = None
    for entry in found:
        file = _or_word(_open_parquet, entry)
        if isinstance(file, str):
            continue
        column = parquet.image_column(file.schema_arrow, image_column, redacted(entry.place))
        if column is not None:
            return pa.schema([field for field in file.schema_arrow if field.name != column])
        if of_list is None and "uri" in file.schema_arrow.names:
            of_list = file.schema_arrow
    return of_list or pa.schema([])


def _list_input(each: _Input, wanted: _Wanted, skipped: Counter[str]) -> Iterator[SourceImage]:
    if each.kind == "":
        return _list_folder(each, wanted, skipped)
    if each.kind == ".tar":
        return _list_tars([each.file], each, wanted, skipped)
    if each.kind == ".parquet":
        return _list_parquet_files([each.file], each, wanted, skipped)
    return _list_manifest(each.file, each, wanted, each.place)


def _list_manifest(file: Found, each: _Input, wanted: _Wanted, beside: str) -> Iterator[SourceImage]:
    """The images of a manifest or, where the input is a folder, of a part of one; relative uris start `beside`."""
    suffix = ".parquet" if file.suffix == ".manifest" else file.suffix
    names = wanted.carried.names
    if each.kind == "":
        _check_types(manifest.read_columns(file.place, suffix, file.n_bytes), wanted, redacted(file.place))
    listed = manifest.list_images(
        file.place, suffix, file.n_bytes, placed_by=wanted.placed_by, carried=names, folder=_folder_of(beside)
    )
    return (image._replace(image_id=each.prefix + image.image_id) for image in listed) if each.prefix else listed


def _list_folder(each: _Input, wanted: _Wanted, skipped: Counter[str]) -> Iterator[SourceImage]:
    tars: list[Found] = []
    tables: list[Found] = []
    loose = 0
    nothing = (None,) * len(wanted.carried)
    for name, place, suffix, n_bytes in folders.list_files(each.place, skipped):
        if suffix in SUFFIXES:
            if loose == 0:
                _refuse_unplaced(wanted, place)
            loose += 1
            yield SourceImage(each.prefix + name, place, None, n_bytes, carried=nothing)
        elif suffix == ".tar":
            tars.append(Found(each.prefix + name, place, suffix, n_bytes))
        elif suffix == ".parquet":
            tables.append(Found(each.prefix + name, place, suffix, n_bytes))
        else:
            skipped[folders.kind_of(suffix)] += 1
    yield from _list_tars(tars, each, wanted, skipped)
    if loose and tables:
        skipped[".parquet files"] += len(tables)
    else:
        yield from _list_parquet_files(tables, each, wanted, skipped, may_list=not tars)


def _refuse_unplaced(wanted: _Wanted, place: str) -> None:
    """ValueError where faces must be placed by columns, which `place` does not have."""
    if wanted.placed_by:
        columns = " or ".join(map(repr, wanted.placed_by))
        raise ValueError(
            f"{redacted(place)} comes without {' or '.join(wanted.placed_by)} to crop each face by; give a manifest or "
            f"Parquet file with a column {columns}, or --faces detect to find them"
        )


def _list_tars(shards: Sequence[Found], each: _Input, wanted: _Wanted, skipped: Counter[str]) -> Iterator[SourceImage]:
    nothing = (None,) * len(wanted.carried)
    for shard, index in _ahead(_read_index, shards):
        if isinstance(index, str):
            yield from _refused(shard, index, wanted, skipped)
            continue
        _refuse_unplaced(wanted, shard.place)
        shown = redacted(shard.place)
        for member in index.members:
            name = printable(member.name)
            suffix = folders.suffix_of(member.name)
            if member.kind:
                if member.kind != "folders":
                    skipped[member.kind] += 1
            elif os.path.basename(member.name).startswith("."):
                skipped["hidden"] += 1
            elif suffix not in SUFFIXES:
                skipped[folders.kind_of(suffix)] += 1
            else:
                is_cut = member.offset + member.n_bytes > shard.n_bytes
                yield SourceImage(
                    f"{shard.name}/{name}",
                    f"{shown}#{name}",
                    n_bytes=0 if is_cut else member.n_bytes,
                    place=shard.place,
                    offset=member.offset,
                    error="truncated" if is_cut else None,
                    carried=nothing,
                )
        if index.end == tar.CUT:
            skipped["tar files without an end"] += 1
        elif index.end == tar.COMPRESSED and each.kind == ".tar":
            raise _compressed(shown)
        elif index.end is not None:
            skipped[f"{index.end} tar files"] += 1
            yield from _refused(shard, "unreadable", wanted, skipped)


def _read_index(shard: Found) -> tar.Index:
    block = _LOCAL_BLOCK if storage.local_path(shard.place) is not None else _REMOTE_BLOCK
    with ranged.open_ranged(shard.place, shard.n_bytes, block) as file:
        return tar.read_index(file, shard.n_bytes)


def _list_parquet_files(
    found: Sequence[Found], each: _Input, wanted: _Wanted, skipped: Counter[str], *, may_list: bool = False
) -> Iterator[SourceImage]:
    """The images in Parquet files; if there is none and they `may_list` images, those that they list."""
    lists: list[Found] = []
    images = 0
    for entry, file in _ahead(_open_parquet, found):
        if isinstance(file, str):
            if file == "unreadable":
                skipped["damaged Parquet files"] += 1
            yield from _refused(entry, file, wanted, skipped)
            continue
        column = parquet.image_column(file.schema_arrow, wanted.image_column, redacted(entry.place))
        if column is not None:
            images += 1
            yield from _list_parquet(entry, file, column, each.prefix, wanted, skipped)
        elif "uri" in file.schema_arrow.names:
            lists.append(entry)
        else:
            skipped[".parquet files"] += 1
    if lists and (images or not may_list):
        skipped[".parquet files"] += len(lists)
        return
    # Spark writes a folder NAME.parquet for a file: what is relative in it starts beside that.
    is_one = folders.suffix_of(each.name) == ".parquet"
    for entry in lists:
        yield from _list_manifest(entry, each, wanted, each.place if is_one else entry.place)


def _refused(file: Found, word: str, wanted: _Wanted, skipped: Counter[str]) -> Iterator[SourceImage]:
    """An image that stands for a file that may have images and cannot be read; none for a file that is gone."""
    if word == "missing":
        skipped[folders.GONE] += 1
    else:
        yield SourceImage(file.name, redacted(file.place), error=word, carried=(None,) * len(wanted.carried))


def _list_parquet(
    entry: Found, file: pq.ParquetFile, column: str, prefix: str, wanted: _Wanted, skipped: Counter[str]
) -> Iterator[SourceImage]:
    schema, shown = file.schema_arrow, redacted(entry.place)
    if not set(wanted.placed_by) & set(schema.names):
        _refuse_unplaced(wanted, entry.place)
    _check_types(schema, wanted, shown)
    id_column = next((name for name in parquet.ID_COLUMNS if name in schema.names), parquet.PATH)
    names = [id_column, *wanted.placed_by, *wanted.carried.names]
    names = [name for name in dict.fromkeys(names) if name in schema.names]
    parquet.check_columns(schema, [column, *names], entry.place)
    folder, by_path, there, nowhere = _folder_of(entry.place), 0, 0, ""
    try:
        for cell, n_bytes, number, values, is_path in parquet.read_rows(
            file, entry.place, entry.n_bytes, column, names
        ):
            image = SourceImage("", f"{shown}#{number}", n_bytes=n_bytes, place=entry.place, cell=cell)
            if is_path:
                file_image = named.find(values[parquet.PATH], folder)
                nowhere = file_image.uri
                by_path, there = by_path + 1, there + named.may_exist(file_image)
                if file_image.error or named.may_exist(file_image):  # else the cell, which is null: missing
                    image = file_image
            own = parquet.text(values.get(id_column))
            yield image._replace(
                image_id=f"{entry.name}/{number}" if own is None else f"{prefix}{own}",
                landmarks=points_of(values),
                carried=tuple(values.get(name) for name in wanted.carried.names),
            )
            if by_path == number + 1 and not there and number + 1 in (_TRIED, file.metadata.num_rows):
                raise ValueError(
                    f"{shown} has paths in place of images ({column}.bytes is null), and there is no file "
                    f"'{nowhere}'; put the files where the paths say, or embed them"
                )
    except parquet.Damaged:
        skipped["damaged Parquet files"] += 1
        yield from _refused(entry, "unreadable", wanted, skipped)


def _check_types(schema: pa.Schema, wanted: _Wanted, shown: str) -> None:
    """ValueError for a column to carry that has another type here."""
    for field in wanted.carried:
        if field.name in schema.names and parquet.plain_type(schema.field(field.name).type) != field.type:
            raise ValueError(
                f"column '{field.name}' is {schema.field(field.name).type} in {shown}, {field.type} elsewhere"
            )


def _open_parquet(entry: Found) -> pq.ParquetFile:
    return parquet.open_file(entry.place, entry.n_bytes)


def _folder_of(place: str) -> str:
    """The folder of a place, as a path where it is local."""
    return storage.folder_of(storage.local_path(place) or place)


def _or_word(function: Callable[[Found], T], file: Found) -> T | str:
    """The function's result for a file, or the word of `errors.ERRORS` that says why there is none."""
    try:
        return function(file)
    except parquet.Damaged:
        return "unreadable"
    except storage.StorageUnavailable:
        raise
    except FileNotFoundError:
        return "missing"
    except PermissionError:
        return "forbidden"
    except OSError as error:
        if error.errno == errno.ESTALE:
            return "changed"
        raise


def _ahead(function: Callable[[Found], T], items: Iterable[Found]) -> Iterator[tuple[Found, T | str]]:
    """Each item and `_or_word` of the function for it, in order.  Threads work some items ahead of the reader."""
    waiting: deque[tuple[Found, Future[T | str]]] = deque()
    with ThreadPoolExecutor(_AHEAD) as threads:
        try:
            for item in items:
                waiting.append((item, threads.submit(_or_word, function, item)))
                if len(waiting) == _AHEAD:
                    done, answer = waiting.popleft()
                    yield done, answer.result()
            while waiting:
                done, answer = waiting.popleft()
                yield done, answer.result()
        finally:
            for _, answer in waiting:
                answer.cancel()
