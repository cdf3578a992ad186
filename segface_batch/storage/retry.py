"""One layer of retries with one deadline, in place of the clients' own, which multiply (15 to 25 requests).

What the store answers for good is never asked again.
"""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Callable
from typing import TypeVar

from segface_batch.storage.store import Unusable

T = TypeVar("T")

#: How long a request is repeated; a store that restarts or asks to slow down is back sooner.
SECONDS = 30.0

#: The first pause and the longest one.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0

#: S3's words for a request that no other request of these credentials will help (docs.aws.amazon.com/AmazonS3/latest/
#: API/ErrorResponses.html).
_UNUSABLE = frozenset(
    "AccountProblem AllAccessDisabled AuthorizationHeaderMalformed ExpiredToken InvalidAccessKeyId InvalidBucketName "
    "InvalidSecurity InvalidToken NoSuchBucket NotSignedUp PermanentRedirect RequestTimeTooSkewed "
    "SignatureDoesNotMatch TokenRefreshRequired".split()
)

_CURES = {
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it",
    "ExpiredToken": "the credentials have expired: renew them",
    "TokenRefreshRequired": "the credentials have expired: renew them",
    "NoSuchBucket": "no such bucket: check the URL and the endpoint",
    "InvalidBucketName": "no such bucket: check the URL and the endpoint",
    "PermanentRedirect": "the bucket is in another region: set AWS_REGION",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set AWS_REGION",
}

_FINAL = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)
_FINAL_NUMBERS = (errno.EFBIG, errno.ENOSYS, errno.ENAMETOOLONG)


class Deadline:
    """Shared by requests that belong together: the time runs from the first failure."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self.ends: float | None = None

    def is_over(self, pause: float) -> bool:
        now = time.monotonic()
        self.ends = self.ends or now + self.seconds
        return now + pause > self.ends


def patiently(request: Callable[[], T], place: str, deadline: Deadline | None = None) -> T:
    """The request's answer, repeated until the deadline; the package's errors for what it raises."""
    deadline = deadline or Deadline()
    pause = _FIRST_PAUSE
    while True:
        try:
            return request()
        except Exception as error:  # every client has errors of its own
            known = _known(error, place)
            if known is not None:
                raise known from error
            if deadline.is_over(pause):
                raise OSError(
                    errno.EIO, f"no answer but '{_short(error)}' within {deadline.seconds:g} s", place
                ) from error
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, _LONGEST_PAUSE)


def cure(word: str) -> str:
    """What to do about one of S3's words for requests that no other request will help."""
    return _CURES.get(word, "check the credentials (AWS_ACCESS_KEY_ID, AWS_PROFILE, the role)")


def code(error: BaseException) -> str:
    """S3's word for an error, "" where there is none."""
    cause = error if hasattr(error, "response") else error.__cause__
    response = getattr(cause, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _known(error: Exception, place: str) -> Exception | None:
    """What the store answers for good; None for what may be otherwise next time."""
    word, status = code(error), getattr(error, "status", None)
    if type(error).__name__ in (
        "NoCredentialsError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "TokenRetrievalError",
    ):
        return Unusable(
            errno.EACCES, f"{_short(error)}; set AWS_PROFILE or AWS_ACCESS_KEY_ID, or --storage-options "
            '\'{"anon": true}\' for a public bucket', place
        )  # fmt: skip
    if word in _UNUSABLE:
        return Unusable(errno.EACCES, f"{word}: {cure(word)}", place)
    if isinstance(error, Unusable | ImportError | TypeError):
        return error
    if isinstance(error, _FINAL):
        return type(error)(error.errno or errno.EIO, word or error.strerror or str(error), place)
    if isinstance(error, OSError) and error.errno in _FINAL_NUMBERS:
        return error
    if status in (401, 403):
        return PermissionError(errno.EACCES, f"HTTP {status}", place)
    if status is not None and 400 <= status < 500 and status not in (408, 425, 429):
        return FileNotFoundError(errno.ENOENT, f"HTTP {status}", place)
    return None


def _short(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
