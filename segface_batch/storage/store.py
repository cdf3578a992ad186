"""What every kind of storage does; the package says how it fails."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from segface_batch.storage.retry import Deadline


class Unusable(PermissionError):
    """Nothing of this storage can be had: no or refused credentials, a wrong clock, no such bucket, no package."""


class Entry(NamedTuple):
    """An object of a listing: its place, and its bytes."""

    place: str
    n_bytes: int


class Store(Protocol):
    def read(self, place: str, max_bytes: int, span: tuple[int, int] | None, deadline: Deadline | None) -> bytes: ...

    def size(self, place: str) -> int | None: ...

    def put(self, place: str, data: bytes, *, overwrite: bool) -> bool: ...

    def remove(self, places: Iterable[str]) -> None: ...

    def listing(self, folder: str) -> Iterator[Entry]: ...
