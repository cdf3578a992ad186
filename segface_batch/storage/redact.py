"""URLs without the secrets in them, for the output's columns and for messages."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote

from segface_batch.storage.local import is_file_url
from segface_batch.storage.place import is_url

#: Azure's schemes, in which `name@host` names a container and no user.
_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")

_PARAMETER = re.compile(r"(?<=[?&;])([^=&;#]+)=[^&;#]*")
#: Query parameters that authorize a request, and those that its signature covers: they change with every listing, and
#: the same image would look new.
_SECRET = re.compile(
    r"x-(amz|goog|ms)-.*|.*(signature|token|secret|passw|credential).*|sig|auth.*|.*key(id)?|key-pair-id|policy|code|expires|s[et]"
)


def redacted(url: str) -> str:
    """The URL without user and password, and with `REDACTED` for what authorizes it; a local place unchanged."""
    if "://" not in url or ("@" not in url and "=" not in url):  # fast, for millions of URLs
        return url
    if url.startswith("/") or is_file_url(url):
        return url
    scheme, user, host, rest = _split(url)
    return f"{scheme}://{host if user is None else host.rpartition('@')[2]}{_PARAMETER.sub(_parameter, rest)}"


def names_user(url: str) -> bool:
    """True for a URL with a user or password in it."""
    return is_url(url) and not is_file_url(url) and _split(url)[1] is not None


def redacted_text(text: str) -> str:
    """The message with all its URLs redacted."""
    return re.sub(r"(?i)[a-z][a-z0-9+.:]*://[^\s'\"<>]+", lambda found: redacted(found[0]), text)


def one_line(error: BaseException) -> str:
    """What happened, without secrets; the system's errors as PLACE: MESSAGE."""
    text, place = str(error), ""
    if isinstance(error, OSError) and error.strerror:
        # A place may have blanks, at which a URL in a text ends.
        text, place = error.strerror, f"{redacted(os.fsdecode(error.filename))}: " if error.filename else ""
    return place + redacted_text((text.splitlines() or [""])[0])


def _split(url: str) -> tuple[str, str | None, str, str]:
    """The scheme, the user if there is one, the host with the user, and the rest."""
    scheme, _, rest = url.partition("://")
    end = min((rest.index(mark) for mark in "/?#" if mark in rest), default=len(rest))
    user, at, _ = rest[:end].rpartition("@")
    is_user = at and scheme.rpartition("::")[2].lower() not in _CONTAINERS
    return scheme, user if is_user else None, rest[:end], rest[end:]


def _parameter(found: re.Match[str]) -> str:
    return f"{found[1]}=REDACTED" if _SECRET.fullmatch(unquote(found[1]).lower()) else found[0]
