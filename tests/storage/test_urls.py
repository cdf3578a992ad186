"""Other URLs that fsspec knows."""

from __future__ import annotations

import errno
import gzip
import http.server
import re
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from segface_batch import storage


@pytest.fixture(autouse=True)
def _memory() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").store.clear()


@pytest.mark.parametrize("folder", ["memory://b/in", "memory:///b/in"])
def test_places_of_a_listing_are_those_that_were_put(folder: str) -> None:
    for name in ("c", "a/2", "a/10", "a.txt"):
        assert storage.put(f"{folder}/{name}", name.encode())
    assert not storage.put(f"{folder}/c", b"again")
    listed = list(storage.list_objects(folder))
    assert listed == [(f"{folder}/a/10", 4), (f"{folder}/a/2", 3), (f"{folder}/a.txt", 5), (f"{folder}/c", 1)]
    assert [storage.read(place) for place, _ in listed] == [b"a/10", b"a/2", b"a.txt", b"c"]
    assert storage.list_names(folder, "") == ["a.txt", "a/10", "a/2", "c"]
    storage.replace(f"{folder}/c", b"other")
    assert storage.read(f"{folder}/c") == b"other"
    storage.remove([f"{folder}/c", f"{folder}/absent"])
    assert storage.list_names(folder, "") == ["a.txt", "a/10", "a/2"]
    assert list(storage.list_objects(f"{folder}/absent")) == []


def test_parts_of_objects_and_limits() -> None:
    storage.put("memory://b/a", b"0123456789")
    assert storage.read("memory://b/a", span=(3, 6)) == b"345"
    with pytest.raises(OSError, match=r"(?i)too large: 'memory://b/a'"):
        storage.read("memory://b/a", max_bytes=5)
    with pytest.raises(OSError, match=r"has 2 of the 4 bytes"):
        storage.read("memory://b/a", span=(8, 12))
    with pytest.raises(FileNotFoundError, match=r"\A.*'memory://b/absent'\Z"):
        storage.read("memory://b/absent")


class Unsized(MemoryFileSystem):
    """Tells no sizes, like some of fsspec's file systems."""

    protocol = "unsized"

    def info(self, path: str, **more: Any) -> dict[str, Any]:
        return super().info(path, **more) | {"size": None}


def test_an_object_of_unknown_size_is_read_to_learn_it() -> None:
    fsspec.register_implementation("unsized", Unsized, clobber=True)
    storage.put("unsized://b/a", b"0123456789")
    assert storage.get_size("unsized://b/a") == 10
    assert storage.get_size("unsized://b") is None


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves files; 503 for the first request of each, 403 for those named so."""

    seen: set[str] = set()  # noqa: RUF012
    count = 0

    def do_GET(self) -> None:
        type(self).count += 1
        if self.path == "/forbidden":
            self.send_error(403)
        elif self.path not in self.seen:
            self.seen.add(self.path)
            self.send_error(503)
        else:
            super().do_GET()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def test_web_servers_are_read_patiently(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            assert storage.read(f"{url}/a") == b"content"
            assert Server.count == 2
            with pytest.raises(FileNotFoundError, match=rf"'{url}/absent'\Z"):
                storage.read(f"{url}/absent")
            assert Server.count == 4
            with pytest.raises(PermissionError, match=rf"HTTP 403: '{url}/forbidden'\Z"):
                storage.read(f"{url}/forbidden")
            assert Server.count == 5
        finally:
            server.shutdown()


@pytest.mark.parametrize("scheme", ["gs", "nonsense"])
def test_a_scheme_without_its_package_says_what_to_install(scheme: str) -> None:
    words = {"gs": "Please install gcsfs", "nonsense": "Protocol not known: nonsense"}[scheme]
    with pytest.raises(storage.StorageUnavailable, match=rf"\A.*{scheme}:// URLs: .*{words}.*\Z"):
        storage.read(f"{scheme}://bucket/a")


class Signed(http.server.BaseHTTPRequestHandler):
    """Knows no HEAD.  Remembers what it was asked for; the rest of a path says what it answers."""

    protocol_version = "HTTP/1.1"
    asked: list[str] = []  # noqa: RUF012
    hosts: list[str] = []  # noqa: RUF012
    logins: list[str | None] = []  # noqa: RUF012
    content = bytes(range(256))

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.hosts.append(self.headers["Host"])
        self.logins.append(self.headers["Authorization"])
        kind, _, rest = self.path[1:].partition("/")
        if kind == "round":
            self.answer(302, b"", Location=self.path)
        elif kind == "to":
            self.answer(302, b"", Location=unquote(rest).encode().decode("latin-1"))
        elif kind == "zip":
            self.answer(200, gzip.compress(self.content), **{"Content-Encoding": "gzip"})
        elif kind == "part" and (span := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))):
            start, end = int(span[1]), int(span[2]) + 1
            self.answer(206, self.content[start:end], **{"Content-Range": f"bytes {start}-{end - 1}/256"})
        elif kind == "willing" and "gzip" in self.headers.get("Accept-Encoding", ""):
            self.answer(206, gzip.compress(self.content), **{"Content-Encoding": "gzip"})  # a part of that
        elif kind == "unsized":
            self.close_connection = True
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.content)
        elif kind == "endless":
            self.close_connection = True
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(2**16))
            except ConnectionError:
                pass
        elif kind == "gone":
            self.answer(410, b"")
        else:
            self.answer(200, self.content)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    Signed.asked.clear()
    Signed.hosts.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Signed) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


AS_WRITTEN = [
    "/apos%27s/c'.jpg", "/tilde%7Eu~", "/slash%2Fx", "/upper%C3%A9lower%c3%a9", "/%2520", "/p+q%2B%20",
    "/a/../b//c/./d", "/odd|{}^`\"<>\\?|[]\"",
    "/x?t=2020-01-01T00%3A00%3A00Z&a=b+c%2B%20&sig=a%2Fb%3D=", "/x?a=%41&b=/?:@!$'()*,;", "/?x",
    "/%zz", "/x?", "/;p=1,2", "/x%23y%3Fz",
]  # fmt: skip


@pytest.mark.parametrize("target", AS_WRITTEN)
def test_a_url_is_sent_as_it_is_written(web: str, target: str) -> None:
    expected = "/x" if target == "/x?" else target  # an empty query
    assert storage.read(web + target) == Signed.content
    assert storage.read(f"{web}/to/{quote(target, safe='')}") == Signed.content
    assert storage.read(f"{web}/to/{quote(web + target, safe='')}") == Signed.content
    assert Signed.asked[0] == expected
    if "/../" not in target:  # a redirect is resolved first
        assert [Signed.asked[2], Signed.asked[4]] == [expected] * 2


def test_what_no_request_can_have_is_escaped(web: str) -> None:
    target, escaped = "/é b.jpg?ü= ü#part", "/%C3%A9%20b.jpg?%C3%BC=%20%C3%BC"
    assert storage.read(web + target) == Signed.content
    assert storage.read(f"{web}/to/{quote(target, safe='')}") == Signed.content
    assert [Signed.asked[0], Signed.asked[2]] == [escaped] * 2
    assert storage.read(web.replace("http", "HTTP")) == Signed.content
    assert Signed.asked[-1] == "/"
    port = web.rpartition(":")[2]
    assert storage.read(f"http://LOCALHOST:{port}/a") == storage.read(f"http://u%40:p@127.0.0.1:{port}/a")
    assert Signed.hosts[-2:] == [f"localhost:{port}", f"127.0.0.1:{port}"]


@pytest.mark.parametrize("kind", ["plain", "part", "unsized", "zip", "willing"])
def test_servers_need_know_neither_head_nor_ranges_nor_lengths(web: str, kind: str) -> None:
    url = f"{web}/{kind}/a"
    assert storage.get_size(url) == 256
    assert storage.read(url) == Signed.content
    assert storage.read(url, span=(250, 256)) == Signed.content[250:]
    assert storage.read(url, span=(0, 5)) == Signed.content[:5]
    with pytest.raises(OSError, match=r"has 6 of the 10 bytes"):
        storage.read(url, span=(250, 260))
    with pytest.raises(OSError, match=r"(?i)too large") as caught:
        storage.read(url, max_bytes=255)
    assert caught.value.errno == errno.EFBIG
    assert storage.read(url, max_bytes=256) == Signed.content


def test_a_login_in_the_options_is_sent_along(web: str) -> None:
    for options, login in (('{"http": {"headers": {"Authorization": "mine"}}}', "mine"), (None, None)):
        storage.configure(options)
        assert storage.read(f"{web}/part/a", span=(250, 256)) == Signed.content[250:]
        assert Signed.logins[-1] == login


def test_an_endless_answer_is_too_large(web: str) -> None:
    with pytest.raises(OSError, match=r"(?i)too large"):
        storage.read(f"{web}/endless", max_bytes=10**6)
    assert storage.read(f"{web}/endless", span=(64 * 2**20, 64 * 2**20 + 2)) == b"\0\0"
    with pytest.raises(OSError, match=r"the server sends whole files only, no parts of them; copy it here first"):
        storage.read(f"{web}/endless", span=(64 * 2**20 + 1, 64 * 2**20 + 2))


LABEL = "a" * 70

MALFORMED = [
    "http://[::1/x", "http://127.0.0.1:99999/x", f"http://{LABEL}.org/x", "http:///x", "http://", "http://a b.org/x",
    "http://a..b/x", "http://h:x/y", "http://1.2.3.4.5/x", "HTTPS://[x", "http://\0/x", "http://ü\ud800/x", "file://%00",
    "http://h/\ud800",
]  # fmt: skip


@pytest.mark.parametrize("url", MALFORMED)
def test_a_malformed_url_is_an_error_of_its_own(url: str) -> None:
    with pytest.raises(OSError) as caught:  # noqa: PT011
        storage.read(url)
    assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, url)
    assert not isinstance(caught.value, storage.StorageUnavailable)


@pytest.mark.parametrize(
    "target",
    ["http://[::1/x", "http://127.0.0.1:99999/x", f"http://{LABEL}.org/x", "http:///x", "ftp://h/x", "file:///x"],
)
def test_a_server_that_redirects_to_no_valid_place_is_an_error_of_its_own(web: str, target: str) -> None:
    url = f"{web}/to/{quote(target, safe='')}"
    with pytest.raises(OSError, match=r"the server redirects to no valid place: ") as caught:
        storage.read(url)
    assert (caught.value.errno, caught.value.filename) == (errno.EPROTO, url)
    assert len(Signed.asked) == 1


def test_redirects_end_and_what_is_gone_is_missing(web: str) -> None:
    with pytest.raises(OSError, match=r"the server redirects to no valid place: TooManyRedirects"):
        storage.read(f"{web}/round")
    with pytest.raises(OSError, match=r"HTTP 302 without a place to go to"):
        storage.read(f"{web}/to/")
    with pytest.raises(FileNotFoundError, match=r"HTTP 410"):
        storage.read(f"{web}/gone")
