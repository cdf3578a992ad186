"""Storage options: JSON arguments for fsspec's file systems.  Every process has its own copy.

Secrets stay out of command lines, task arguments and outputs.  They come from a file that every node can read or, if no
options are given, from the environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, roles, FSSPEC_S3_KEY, ...).
Standard library only, until `configure`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Clients for s3:// URLs.
S3_CLIENTS = ("s3fs", "obstore")

#: Words that mark an option as a secret.
_SECRET_WORDS = ("secret", "token", "password", "passwd", "credential", "account_key", "connection_string", "sas")

#: This process's options by protocol, and its S3 client.
_configured: tuple[dict[str, dict[str, Any]], str] = {}, S3_CLIENTS[0]
#: What fsspec's configuration had in their place.
_replaced: dict[str, dict[str, Any]] = {}
_lock = threading.Lock()


def check(options: str | None) -> None:
    """ValueError or FileNotFoundError, in one line with a hint, for invalid storage options."""
    if options is None:
        return
    secrets = [name for name in _names(_parse(options)) if _is_secret(name)]
    if secrets and _is_json(options):
        raise ValueError(
            f"--storage-options has '{secrets[0]}' on the command line, where every user of the machine can read it; "
            "put the JSON into a file and name the file, or use AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )


def configure(options: str | None, s3_client: str = S3_CLIENTS[0]) -> bool:
    """Replace this process's options; True if that changed them.

    They override fsspec's own configuration (its files, FSSPEC_S3_KEY, ...) for everything in this process that uses
    fsspec.  A file of options is read again each time, because its keys may have been renewed.
    """
    global _configured, _replaced
    if s3_client not in S3_CLIENTS:
        raise ValueError(f"unknown S3 client '{s3_client}'; choose one of: {', '.join(S3_CLIENTS)}")
    wanted = _by_protocol(_parse(options)) if options is not None else {}
    with _lock:
        if (wanted, s3_client) == _configured:
            return False
        from fsspec.config import conf

        conf.update(_replaced)
        _replaced = {protocol: conf.get(protocol, {}) for protocol in wanted}
        conf.update({protocol: _replaced[protocol] | given for protocol, given in wanted.items()})
        _configured = wanted, s3_client
        return True


def given(protocol: str) -> dict[str, Any]:
    """This process's options for a protocol."""
    from fsspec.config import conf

    return dict(conf.get(protocol, {}))


def s3_client() -> str:
    return _configured[1]


def _parse(options: str) -> dict[str, Any]:
    if not _is_json(options) and not Path(options).is_file():
        raise FileNotFoundError(f"no file '{options}'; give --storage-options a JSON file or a JSON object")
    try:
        found = json.loads(options if _is_json(options) else Path(options).read_text())
    except ValueError as error:
        raise ValueError(f"--storage-options: {_source(options)} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f'--storage-options: give an object like {{"anon": true}}, not {_source(options)}')
    return found


def _source(options: str) -> str:
    return "the text" if _is_json(options) else f"'{options}'"


def _is_json(options: str) -> bool:
    return options.lstrip().startswith(("{", "[", '"'))


def _by_protocol(options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Options by protocol: {"s3": {...}, "gs": {...}} stays as it is, anything else is for s3."""
    from fsspec import available_protocols

    named = options and all(name in available_protocols() and isinstance(options[name], dict) for name in options)
    return options if named else {"s3": options}


def _names(options: dict[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        yield name
        if isinstance(value, dict):
            yield from _names(value)


def _is_secret(name: str) -> bool:
    return name == "key" or any(word in name.lower() for word in _SECRET_WORDS)
