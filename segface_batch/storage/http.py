"""http:// and https:// through the session of fsspec.  A URL is sent as it is written, because a signature may cover
every byte of it; so is one that a server redirects to.
"""

from __future__ import annotations

import errno
import os
import re
import string
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import aiohttp
import fsspec
import yarl
from fsspec.asyn import sync

from segface_batch.storage import account, options, retry
from segface_batch.storage.remote import Fsspec

#: Seconds for a whole request, even if bytes keep coming.
_WHOLE_REQUEST = 300.0

#: The most bytes to read in vain where a server sends a whole file instead of the part asked for.
_MOST_SKIPPED = 64 * 2**20

_CHUNK = 2**20

_NOT_IN_HOSTS = re.compile(r"""[\x00-\x20\x7f"'<>\\^`{|}*]""")


class Http(Fsspec):
    """One GET reads a file, no further than asked for; servers need know neither HEAD nor ranges nor lengths."""

    def __init__(self, scheme: str) -> None:
        timeout = aiohttp.ClientTimeout(
            total=_WHOLE_REQUEST, sock_connect=account.CONNECT_TIMEOUT, sock_read=account.READ_TIMEOUT
        )
        client = {"requote_redirect_url": False, "middlewares": (_as_written,), "timeout": timeout}
        client |= options.given(scheme).get("client_kwargs") or {}
        self.filesystem: Any = fsspec.filesystem(scheme, client_kwargs=client)

    def read(self, place: str, max_bytes: int, span: tuple[int, int] | None, deadline: retry.Deadline | None) -> bytes:
        async def get() -> bytes:
            async with self._get(place, span) as answer:
                answer.raise_for_status()
                if span is None:
                    if (_length(answer) or 0) > max_bytes:
                        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), place)
                    return await _first(answer.content, min(max_bytes, sys.maxsize - 1) + 1)
                start, end = span
                if answer.status != 206:
                    if start > _MOST_SKIPPED:
                        message = "the server sends whole files only, no parts of them; copy it here first"
                        raise OSError(errno.EPROTO, message, place)
                    await _first(answer.content, start)
                return await _first(answer.content, end - start)

        data: Any = retry.patiently(lambda: sync(self.filesystem.loop, get), place, deadline)
        return data

    def get_size(self, place: str) -> int | None:
        async def ask() -> int | None:
            # Not by HEAD: a signature is often for GET alone.
            async with self._get(place, (0, 1)) as answer:
                total = re.fullmatch(r"bytes .*/(\d+)", answer.headers.get("Content-Range", ""))
                if answer.status in (206, 416) and total:
                    return int(total[1])
                answer.raise_for_status()
                return _length(answer) if answer.status == 200 else None

        size: Any = retry.patiently(lambda: sync(self.filesystem.loop, ask), place)
        # Some servers give no size for what they generate.
        return len(self.read(place, sys.maxsize, None, None)) if size is None else size

    @asynccontextmanager
    async def _get(self, place: str, span: tuple[int, int] | None) -> AsyncIterator[aiohttp.ClientResponse]:
        given = dict(self.filesystem.kwargs)
        # A part of a compressed file could not be decompressed.
        headers = {"Accept-Encoding": "identity", **(given.pop("headers", None) or {})}
        if span is not None:
            headers["Range"] = f"bytes={span[0]}-{span[1] - 1}"
        session = await self.filesystem.set_session()
        url = _address(place)
        try:
            async with session.get(url, headers=headers, **given) as answer:
                if 300 <= answer.status < 400:
                    raise OSError(errno.EPROTO, f"HTTP {answer.status} without a place to go to", place)
                yield answer
        except (aiohttp.RedirectClientError, aiohttp.TooManyRedirects, ValueError) as error:
            if isinstance(error, aiohttp.InvalidURL) and str(error.url) in (str(url), url.raw_host):
                raise
            message = f"the server redirects to no valid place: {type(error).__name__}"
            raise OSError(errno.EPROTO, message, place) from error


def _length(answer: aiohttp.ClientResponse) -> int | None:
    """The length of a body, if that is known: not of one that comes compressed."""
    return answer.content_length if answer.headers.get("Content-Encoding", "identity") == "identity" else None


async def _first(content: aiohttp.StreamReader, n_bytes: int) -> bytes:
    """The next `n_bytes`, or all that are left."""
    pieces: list[bytes] = []
    while n_bytes > 0 and (piece := await content.read(min(n_bytes, _CHUNK))):
        pieces.append(piece)
        n_bytes -= len(piece)
    return b"".join(pieces)


def _address(place: str) -> yarl.URL:
    """The URL, its host in ASCII (IDNA) and all behind it as it is written.  ValueError where it has no valid host."""
    head, separator, rest = place.partition("://")
    end = min((rest.index(mark) for mark in "/?#" if mark in rest), default=len(rest))
    origin = yarl.URL(head + separator + rest[:end])
    host = origin.raw_host or ""
    if not host or _NOT_IN_HOSTS.search(host):
        raise ValueError("URL without a valid host")
    host.encode("idna")  # a ValueError for names that are too long
    return yarl.URL(str(origin).rstrip("/") + _sendable(rest[end:]), encoded=True)


def _sendable(text: str) -> str:
    """Unchanged but for blanks, control characters and what is not ASCII: no request line can have these."""
    return quote(text, safe=string.punctuation)


async def _as_written(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Some servers redirect to URLs with blanks and umlauts."""
    path = str(request.url)
    if (sendable := _sendable(path)) != path:
        request.url = yarl.URL(sendable, encoded=True)
    return await handler(request)
