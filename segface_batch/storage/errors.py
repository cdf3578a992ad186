"""The error that condemns a whole storage, as opposed to one object in it."""

from __future__ import annotations


class StorageUnavailable(PermissionError):
    """No object of this storage can be read or written.

    EACCES where that concerns all storages of the scheme: no or refused credentials, a wrong clock, a wrong option.
    The other numbers concern one: EINVAL an unknown scheme, one without its package, or no bucket name; ENOENT no such
    bucket; EREMOTE a bucket in another region; EPERM a bucket that is closed.
    """
