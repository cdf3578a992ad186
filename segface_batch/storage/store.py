"""What every kind of storage does.  The package's docstring lists the errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from segface_batch.storage.retry import Deadline


class Entry(NamedTuple):
    """An object in a listing: its place and its size in bytes."""

    place: str
    n_bytes: int


class Store(Protocol):
    """The functions of the same names in the package, for the places of one store."""

    @property
    def creates_only(self) -> bool: ...

    def read(self, place: str, max_bytes: int, span: tuple[int, int] | None, deadline: Deadline | None) -> bytes: ...

    def get_size(self, place: str) -> int | None: ...

    def put(self, place: str, data: bytes, *, overwrite: bool) -> bool: ...

    def remove(self, places: Iterable[str]) -> None: ...

    def list_objects(self, folder: str) -> Iterator[Entry]: ...
