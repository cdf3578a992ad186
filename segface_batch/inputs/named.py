"""An image that a row of a manifest or of a Parquet file names by its path or URL."""

from __future__ import annotations

import errno
import os

from segface_batch import storage
from segface_batch.inputs import folders
from segface_batch.inputs.image import SourceImage, printable
from segface_batch.storage.redact import redacted


def find(uri: str, folder: str) -> SourceImage:
    """The image, called by its `uri`, with the size of a local file that exists.  Relative paths start at `folder`.

    Its `error` is `bad_uri` where no file and no object can be called that.
    """
    uri = uri.lstrip() if storage.is_url(uri.lstrip()) else uri
    place = uri if storage.is_url(uri) or uri.startswith("/") else f"{folder}/{uri}"
    n_bytes, error = 0, None if storage.is_valid(place) else "bad_uri"
    path = storage.local_path(place)
    if path is not None and printable(place) != place:
        place = folders.place_of(path)
    if path is not None and error is None:
        try:
            n_bytes = os.stat(path).st_size
        except OSError as refused:
            error = "bad_uri" if refused.errno == errno.ENAMETOOLONG else None
    shown = _printable(redacted(place))
    place = None if shown == place or error else place
    return SourceImage(_printable(redacted(uri)), shown, n_bytes=n_bytes, place=place, error=error)


def _printable(name: str) -> str:
    return printable(name).replace("\0", "\\x00")


def may_exist(image: SourceImage) -> bool:
    """False for a local file that is not there, and for what can be nowhere."""
    is_remote = storage.local_path(image.place or image.uri) is None
    return image.error is None and (is_remote or image.n_bytes > 0)
