"""Other URLs that fsspec knows."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import fsspec
import pytest

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
