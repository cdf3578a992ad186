"""One layer of retries with one deadline.  The clients' own retries, which multiply (15 to 25 requests), are off.

A final answer, such as 403 or 404, is never asked for again.
"""

from __future__ import annotations

import errno
import random
import re
import ssl
import time
from collections.abc import Callable
from typing import Any, TypeVar

from segface_batch.storage.errors import StorageUnavailable

T = TypeVar("T")

#: How long a request is repeated after its first failure.  A store that restarts or throttles recovers sooner.
SECONDS = 30.0

#: The first and the longest pause between attempts, in seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0

#: S3's error codes that condemn every request, or every one to a bucket, with a hint for each
#: (docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html).
_CREDENTIALS = "check the credentials (AWS_ACCESS_KEY_ID and its secret, AWS_PROFILE, the role, --storage-options)"
_RENEW = "the credentials have expired: renew them"
_BUCKET = "no such bucket: check the URL and the endpoint"
_REGION = "the bucket is in another region: set AWS_REGION"
_CLOSED = "the bucket or its owner's account is closed to all"
_HINTS = {
    **dict.fromkeys(("InvalidAccessKeyId", "InvalidSecurity", "InvalidToken", "NotSignedUp"), _CREDENTIALS),
    "SignatureDoesNotMatch": _CREDENTIALS,
    **dict.fromkeys(("AccountProblem", "AllAccessDisabled"), _CLOSED),
    **dict.fromkeys(("ExpiredToken", "TokenRefreshRequired"), _RENEW),
    **dict.fromkeys(("InvalidBucketName", "NoSuchBucket"), _BUCKET),
    **dict.fromkeys(("AuthorizationHeaderMalformed", "IllegalLocationConstraintException"), _REGION),
    "PermanentRedirect": _REGION,
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it",
}

#: Numbers of `StorageUnavailable` for hints that concern one bucket.
_BUCKET_NUMBERS = {_BUCKET: errno.ENOENT, _REGION: errno.EREMOTE, _CLOSED: errno.EPERM}

#: botocore's errors that occur before it sends anything.
_UNSENT = frozenset((
    "NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "SSOTokenLoadError", "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
))  # fmt: skip

#: Statuses that say more than "not this one".
_NUMBERS = {
    401: errno.EACCES, 403: errno.EACCES, 404: errno.ENOENT, 410: errno.ENOENT, 416: errno.ESTALE, 501: errno.ENOSYS,
}  # fmt: skip

#: HTTP 4xx statuses and S3 error codes worth a retry: timeouts, races with another writer, throttling, bodies damaged
#: on the way.
_RETRIED_STATUS = (408, 409, 425, 429)
_RETRIED_CODES = ("BadDigest", "IncompleteBody", "RequestTimeout", "Throttling", "XAmzContentSHA256Mismatch")

#: Errors without an HTTP answer that a retry cannot help: those of the place, and mistakes of a client.
_FINAL = {
    FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES, FileExistsError: errno.EEXIST,
    IsADirectoryError: errno.EISDIR, NotADirectoryError: errno.ENOTDIR,
}  # fmt: skip
_FINAL_NUMBERS = (errno.EFBIG, errno.EINVAL, errno.ENAMETOOLONG, errno.ENOSYS, errno.EPROTO)
_MISTAKES = (AssertionError, AttributeError, LookupError, MemoryError, NotImplementedError, TypeError)

#: How obstore's messages quote an HTTP answer: status and S3 error code.
_OBSTORE_ANSWER = re.compile(r"Server returned non-2xx status code: (\d{3})(?:.*?<Code>(\w+)</Code>)?", re.DOTALL)


class Deadline:
    """A time limit that requests share: `seconds` (default SECONDS) from the first failure after the last success."""

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = SECONDS if seconds is None else seconds
        self._ends: float | None = None

    def reset(self) -> None:
        """Note a success."""
        self._ends = None

    def is_over_after(self, pause: float) -> bool:
        """Note a failure; True if no time is left after another `pause` seconds."""
        now = time.monotonic()
        self._ends = ends = self._ends or now + self.seconds
        return now + pause > ends


def patiently(request: Callable[[], T], place: str, shared: Deadline | None = None) -> T:
    """The answer of a request, which is repeated for SECONDS or until a shared deadline.

    Raises the errors that the package documents.  After a shared deadline every request still has one attempt.
    """
    deadlines = [Deadline(), shared] if shared else [Deadline()]
    pause = _FIRST_PAUSE
    while True:
        try:
            answer = request()
        except Exception as error:  # every client has errors of its own
            final = _final_error(error, place)
            if final is error:
                raise
            if final is not None:
                raise final from error
            if over := [deadline.seconds for deadline in deadlines if deadline.is_over_after(pause)]:
                message = f"no answer but '{status_and_code(error)[1] or _short(error)}' within {min(over):g} s"
                raise OSError(errno.EIO, message, place) from error
        else:
            if shared:
                shared.reset()
            return answer
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, _LONGEST_PAUSE)


def status_and_code(error: BaseException) -> tuple[int | None, str]:
    """HTTP status and S3 error code of the answer behind an error; None and "" where there is none."""
    response: Any = getattr(error, "response", None)
    if response is None:
        response = getattr(error.__cause__, "response", None)
    if isinstance(response, dict):  # botocore
        code = str(response.get("Error", {}).get("Code", ""))
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode"), code
    # requests and httpx (hf://), aiohttp (https://), gcsfs (gs://)
    for answer, name in ((response, "status_code"), (error, "status"), (error, "code")):
        status = getattr(answer, name, None)
        if isinstance(status, int) and status >= 100:
            return status, ""
    answer = _OBSTORE_ANSWER.search(str(error))
    return (int(answer[1]), answer[2] or "") if answer else (None, "")


def _final_error(error: Exception, place: str) -> Exception | None:
    """The error to raise at once, itself or one of the package's; None for one that is worth a retry."""
    if isinstance(error, StorageUnavailable):
        return error
    if type(error).__name__ in _UNSENT:
        hint = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or storage options"
        message = f'{_short(error)}; {hint} ({{"anon": true}} for a public bucket)'
        return StorageUnavailable(errno.EACCES, message, place)
    if type(error).__name__ == "ParamValidationError":  # botocore's, for a bucket or key that no store can have
        return StorageUnavailable(errno.EINVAL, _short(error), place)
    if isinstance(error, ImportError):
        return StorageUnavailable(errno.EINVAL, _short(error), place)
    status, code = status_and_code(error)
    message = code if code and not code.isdecimal() else f"HTTP {status}"
    if code in _HINTS or (status == 301 and code):  # a HEAD has no other code than 301
        hint = _HINTS.get(code, _REGION)
        return StorageUnavailable(_BUCKET_NUMBERS.get(hint, errno.EACCES), f"{message}: {hint}", place)
    if status is not None:
        if status in _RETRIED_STATUS or code in _RETRIED_CODES or (status >= 500 and status != 501):
            return None
        return OSError(_NUMBERS.get(status, errno.EPROTO), message, place) if status >= 400 else None
    if isinstance(error, ssl.SSLCertVerificationError):
        return OSError(errno.EPROTO, _short(error), place)
    if isinstance(error, OSError):
        for final, number in _FINAL.items():
            if isinstance(error, final):
                return OSError(error.errno or number, error.strerror or _short(error), place)
        return error if error.errno in _FINAL_NUMBERS else None
    if isinstance(error, ValueError):  # what clients raise for a place that they cannot ask for
        return OSError(errno.EINVAL, f"no valid place: {_short(error)}", place)
    if isinstance(error, _MISTAKES):
        return OSError(errno.EPROTO, f"{type(error).__name__}: {_short(error)}", place)
    return None


def _short(error: BaseException) -> str:
    """An error's message in one line of at most 200 characters, without obstore's debugging part."""
    return " ".join(str(error).partition("Debug source:")[0].split())[:200] or type(error).__name__
