"""One layer of retries with one deadline, in place of the clients' own, which multiply (15 to 25 requests).

What the store answers for good is never asked again.
"""

from __future__ import annotations

import errno
import random
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

from segface_batch.storage.store import Unusable

T = TypeVar("T")

#: How long a request is repeated after its first failure; a store that restarts or asks to slow down is back sooner.
SECONDS = 30.0

#: The first pause and the longest one.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0

#: S3's words for a request that no other request of these credentials will help, and what will (docs.aws.amazon.com/
#: AmazonS3/latest/API/ErrorResponses.html).
_CREDENTIALS = "check the credentials (AWS_ACCESS_KEY_ID and its secret, AWS_PROFILE, the role, --storage-options)"
_RENEW = "the credentials have expired: renew them"
_BUCKET = "no such bucket: check the URL and the endpoint"
_REGION = "the bucket is in another region: set AWS_REGION"
_HINTS = {
    **dict.fromkeys(("AccountProblem", "AllAccessDisabled", "InvalidAccessKeyId", "InvalidSecurity"), _CREDENTIALS),
    **dict.fromkeys(("InvalidToken", "NotSignedUp", "SignatureDoesNotMatch"), _CREDENTIALS),
    **dict.fromkeys(("ExpiredToken", "TokenRefreshRequired"), _RENEW),
    **dict.fromkeys(("InvalidBucketName", "NoSuchBucket"), _BUCKET),
    **dict.fromkeys(("AuthorizationHeaderMalformed", "IllegalLocationConstraintException"), _REGION),
    "PermanentRedirect": _REGION,
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it",
}

#: botocore's errors before anything is sent.
_UNSENT = frozenset((
    "NoCredentialsError", "ParamValidationError", "PartialCredentialsError", "ProfileNotFound", "SSOTokenLoadError",
    "TokenRetrievalError", "UnauthorizedSSOTokenError",
))  # fmt: skip

#: Refusals (HTTP 4xx) that pass: a timeout, a race with another writer, a throttle, a body that was damaged on its way.
_PASSING = (408, 409, 425, 429)
_PASSING_WORDS = ("BadDigest", "IncompleteBody", "RequestTimeout", "Throttling", "XAmzContentSHA256Mismatch")

#: Errors without an answer that come again: of the place, and of the program.
_FINAL = {
    FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES, FileExistsError: errno.EEXIST,
    IsADirectoryError: errno.EISDIR, NotADirectoryError: errno.ENOTDIR,
}  # fmt: skip
_FINAL_NUMBERS = (errno.EFBIG, errno.ENOSYS, errno.ENAMETOOLONG)
_MISTAKES = (
    AssertionError, AttributeError, ImportError, LookupError, MemoryError, NotImplementedError, TypeError, ValueError,
)  # fmt: skip

#: What obstore tells of an answer.
_TOLD = re.compile(r"Server returned non-2xx status code: (\d{3})(?:.*?<Code>(\w+)</Code>)?", re.DOTALL)


class Deadline:
    """Requests that belong together fail for `seconds` altogether: since the first failure after the last success."""

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = SECONDS if seconds is None else seconds
        self._ends: float | None = None

    def met(self) -> None:
        self._ends = None

    def is_over(self, pause: float) -> bool:
        """Whether nothing is left after another pause; a failure says so."""
        now = time.monotonic()
        self._ends = ends = self._ends or now + self.seconds
        return now + pause > ends


def patiently(request: Callable[[], T], place: str, shared: Deadline | None = None) -> T:
    """The request's answer, repeated for SECONDS, or until a shared deadline; the package's errors for what it raises.

    A shared deadline that is over leaves a request one attempt.
    """
    deadlines = [Deadline(), shared] if shared else [Deadline()]
    pause = _FIRST_PAUSE
    while True:
        try:
            answer = request()
        except Exception as error:  # every client has errors of its own
            known = _known(error, place)
            if known is error:
                raise
            if known is not None:
                raise known from error
            if over := [deadline.seconds for deadline in deadlines if deadline.is_over(pause)]:
                said = f"no answer but '{status_and_word(error)[1] or _short(error)}' within {min(over):g} s"
                raise OSError(errno.EIO, said, place) from error
        else:
            if shared:
                shared.met()
            return answer
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, _LONGEST_PAUSE)


def status_and_word(error: BaseException) -> tuple[int | None, str]:
    """The HTTP status of an error that is an answer, and S3's word for it; None and "" where there is none."""
    response: Any = getattr(error, "response", None)
    if response is None:
        response = getattr(error.__cause__, "response", None)
    if isinstance(response, dict):  # botocore
        word = str(response.get("Error", {}).get("Code", ""))
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode"), word
    # requests and httpx (hf://), aiohttp (https://), gcsfs (gs://)
    for answer, name in ((response, "status_code"), (error, "status"), (error, "code")):
        status = getattr(answer, name, None)
        if isinstance(status, int) and status >= 100:
            return status, ""
    told = _TOLD.search(str(error))
    return (int(told[1]), told[2] or "") if told else (None, "")


def _known(error: Exception, place: str) -> Exception | None:
    """What the store answers for good; None for what may be otherwise next time."""
    if isinstance(error, Unusable):
        return error
    if type(error).__name__ in _UNSENT:
        hint = "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or storage options"
        return Unusable(errno.EACCES, f'{_short(error)}; {hint} ({{"anon": true}} for a public bucket)', place)
    status, word = status_and_word(error)
    said = word if word and not word.isdecimal() else f"HTTP {status}"
    if status == 301 or word in _HINTS:
        return Unusable(errno.EACCES, f"{said}: {_HINTS.get(word, _REGION)}", place)
    if status is not None:
        if status in _PASSING or word in _PASSING_WORDS or (status >= 500 and status != 501):
            return None
        numbers = {401: errno.EACCES, 403: errno.EACCES, 404: errno.ENOENT, 416: errno.ESTALE, 501: errno.ENOSYS}
        return OSError(numbers.get(status, errno.EINVAL), said, place) if status >= 400 else None
    if isinstance(error, OSError):
        for final, number in _FINAL.items():
            if isinstance(error, final):
                return OSError(error.errno or number, error.strerror or _short(error), place)
        return error if error.errno in _FINAL_NUMBERS else None
    return error if isinstance(error, _MISTAKES) else None


def _short(error: BaseException) -> str:
    """An error's message in one line, without what obstore adds for its developers."""
    return " ".join(str(error).partition("Debug source:")[0].split())[:200] or type(error).__name__
