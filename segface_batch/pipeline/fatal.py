"""What must stop the run, wherever in a worker it happens: one exception, in one line without secrets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from segface_batch import storage
from segface_batch.errors import FatalError
from segface_batch.storage.redact import redacted_text


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


def one_line(error: BaseException) -> str:
    """What happened, without secrets; the system's errors as PLACE: MESSAGE."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return redacted_text((text.splitlines() or [""])[0])
