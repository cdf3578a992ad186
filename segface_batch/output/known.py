"""Which images are planned already, in 16 bytes each, however long their names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from segface_batch.inputs.sources import SourceImage


class Known:
    """`image in known`, by image_id and uri; two images are taken for one with a probability of 2^-100 or so."""

    def __init__(self, planned: Iterable[pa.Table]) -> None:
        digests = [
            _digest(image_id, uri)
            for table in planned
            for image_id, uri in zip(table["image_id"].to_pylist(), table["uri"].to_pylist(), strict=True)
        ]
        self.digests = np.sort(np.array(digests, dtype="S16"))

    def __contains__(self, image: SourceImage) -> bool:
        digest = np.bytes_(_digest(image.image_id, image.uri))
        at = np.searchsorted(self.digests, digest)
        return bool(at < len(self.digests) and self.digests[at] == digest)


def _digest(image_id: str, uri: str) -> bytes:
    # The last byte is never 0, which numpy would cut off.
    return hashlib.blake2b(f"{image_id}\0{uri}".encode(), digest_size=15).digest() + b"\1"
