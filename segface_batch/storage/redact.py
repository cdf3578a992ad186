"""URLs without the secrets that some carry, for whatever people read: the output's columns and messages."""

from __future__ import annotations

import re
from urllib.parse import unquote

#: Schemes whose `name@host` names a container (Azure).
_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")

_PARAMETER = re.compile(r"(?<=[?&;])([^=&;#]+)=[^&;#]*")
#: Names of query parameters whose values sign a request or allow one; with a signature also what it covers changes from
#: listing to listing, and would make the same image look new.
_SECRET = re.compile(
    r"x-(amz|goog|ms)-.*|.*(signature|token|secret|passw|credential).*|sig|auth.*|.*key(id)?|key-pair-id|policy|code|expires|s[et]"
)


def redacted(url: str) -> str:
    """The URL without user and password, `REDACTED` in place of what signs it; a path as it is."""
    scheme, separator, rest = url.partition("://")
    if not separator or ("@" not in url and "=" not in url):  # millions of them
        return url
    end = min((rest.index(mark) for mark in "/?#" if mark in rest), default=len(rest))
    host = rest[:end]
    if scheme.rpartition("::")[2] not in _CONTAINERS:
        host = host.rpartition("@")[2]
    return f"{scheme}://{host}{_PARAMETER.sub(_parameter, rest[end:])}"


def redacted_text(text: str) -> str:
    """A message with all URLs in it redacted."""
    return re.sub(r"[a-z][a-z0-9+.:]*://[^\s'\"<>]+", lambda found: redacted(found[0]), text)


def _parameter(found: re.Match[str]) -> str:
    return f"{found[1]}=REDACTED" if _SECRET.fullmatch(unquote(found[1]).lower()) else found[0]
