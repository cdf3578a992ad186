"""The error that condemns a whole storage, as opposed to one object in it."""

from __future__ import annotations


class StorageUnavailable(PermissionError):
    """No object of this storage can be read or written: no or refused credentials, a wrong clock, no such bucket, a
    wrong option, or a package that is not installed."""
