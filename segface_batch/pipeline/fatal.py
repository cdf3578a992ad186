"""What must stop the run, wherever in a worker it happens: one exception, in one line without secrets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from segface_batch import storage
from segface_batch.errors import FatalError
from segface_batch.storage.redact import one_line


@contextmanager
def fatal(what: str) -> Iterator[None]:
    """FatalError for whatever goes wrong inside, which Ray would otherwise take for a lost unit."""
    try:
        yield
    except FatalError:
        raise
    except storage.StorageUnavailable as error:  # says what to do
        raise FatalError(one_line(error)) from error
    except Exception as error:
        raise FatalError(f"{what}: {type(error).__name__}: {one_line(error)}") from error
