"""Which failures are repeated, for how long, and what the others are called."""

from __future__ import annotations

import errno
import ssl
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError, NoCredentialsError, ParamValidationError
from fsspec.exceptions import FSTimeoutError

from segface_batch.storage import StorageUnavailable, retry
from segface_batch.storage.retry import Deadline, patiently


def refusal(status: int, code: str = "") -> ClientError:
    """A store's answer as botocore gives it."""
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")  # pyright: ignore[reportArgumentType]


class Failing:
    """A request that fails so often and then succeeds."""

    def __init__(self, error: Exception, times: int = 1) -> None:
        self.error, self.times, self.count = error, times, 0

    def __call__(self) -> str:
        self.count += 1
        if self.count <= self.times:
            raise self.error
        return "answer"


PASSING = [
    *(refusal(status) for status in (408, 409, 425, 429, 500, 502, 503, 504, 599)),
    *(refusal(400, code) for code in ("BadDigest", "IncompleteBody", "RequestTimeout", "Throttling")),
    refusal(400, "XAmzContentSHA256Mismatch"),
    refusal(503, "SlowDown"),
    ConnectionResetError(errno.ECONNRESET, "reset"), TimeoutError(), FSTimeoutError(), OSError("no number"),
]  # fmt: skip


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_may_pass_is_asked_for_again(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.001)
    request = Failing(error, times=3)
    assert (patiently(request, "s3://b/a"), request.count) == ("answer", 4)


FINAL = [
    *((refusal(status), errno.EPROTO, f"HTTP {status}") for status in (400, 402, 405, 411, 412, 431)),
    *((refusal(status), errno.EACCES, f"HTTP {status}") for status in (401, 403)),
    *((refusal(status), errno.ENOENT, f"HTTP {status}") for status in (404, 410)),
    (refusal(416), errno.ESTALE, "HTTP 416"),
    (refusal(501), errno.ENOSYS, "HTTP 501"),
    (refusal(403, "AccessDenied"), errno.EACCES, "AccessDenied"),
    (refusal(404, "NoSuchKey"), errno.ENOENT, "NoSuchKey"),
    (FileNotFoundError("none"), errno.ENOENT, "none"),
    (PermissionError("no"), errno.EACCES, "no"),
    (IsADirectoryError("folder"), errno.EISDIR, "folder"),
    (OSError(errno.EFBIG, "large", "s3://b/a"), errno.EFBIG, "large"),
    (ssl.SSLCertVerificationError("expired"), errno.EPROTO, "('expired',)"),
    (ValueError("no\nURL"), errno.EINVAL, "no valid place: no URL"),
    (KeyError("x"), errno.EPROTO, "KeyError: 'x'"),
]


@pytest.mark.parametrize(("error", "number", "message"), FINAL, ids=repr)
def test_a_final_answer_is_not_asked_for_again_and_condemns_no_storage(
    error: Exception, number: int, message: str
) -> None:
    request = Failing(error)
    with pytest.raises(OSError) as caught:  # noqa: PT011
        patiently(request, "s3://b/a")
    found = caught.value
    assert (found.errno, found.strerror, found.filename, request.count) == (number, message, "s3://b/a", 1)
    assert not isinstance(found, StorageUnavailable)


CONDEMNING = [
    *((refusal(403, code), errno.EACCES, "check the credentials") for code in ("InvalidAccessKeyId", "InvalidToken")),
    *((refusal(403, code), errno.EACCES, "check the credentials") for code in ("InvalidSecurity", "NotSignedUp")),
    (refusal(403, "SignatureDoesNotMatch"), errno.EACCES, "check the credentials"),
    *((refusal(400, code), errno.EACCES, "renew them") for code in ("ExpiredToken", "TokenRefreshRequired")),
    (refusal(403, "RequestTimeTooSkewed"), errno.EACCES, "this machine's clock is wrong"),
    *((refusal(404, code), errno.ENOENT, "no such bucket") for code in ("NoSuchBucket", "InvalidBucketName")),
    *((refusal(400, code), errno.EREMOTE, "set AWS_REGION") for code in ("AuthorizationHeaderMalformed",
                                                                         "IllegalLocationConstraintException")),
    *((refusal(301, code), errno.EREMOTE, "set AWS_REGION") for code in ("PermanentRedirect", "301")),
    *((refusal(403, code), errno.EPERM, "closed to all") for code in ("AllAccessDisabled", "AccountProblem")),
    (NoCredentialsError(), errno.EACCES, "set AWS_PROFILE"),
    (ParamValidationError(report="Invalid bucket"), errno.EINVAL, "Invalid bucket"),
    (ImportError("gcsfs"), errno.EINVAL, "gcsfs"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "number", "hint"), CONDEMNING, ids=repr)
def test_what_concerns_a_whole_storage_is_said_once_with_a_hint(error: Exception, number: int, hint: str) -> None:
    request = Failing(error)
    with pytest.raises(StorageUnavailable) as caught:
        patiently(request, "s3://b/a")
    assert (caught.value.errno, caught.value.filename, request.count) == (number, "s3://b/a", 1)
    assert hint in str(caught.value)


def test_a_deadline_begins_with_the_first_failure_and_again_after_a_success() -> None:
    deadline = Deadline(0.2)
    time.sleep(0.15)
    assert not deadline.is_over_after(0.1)
    time.sleep(0.15)
    assert deadline.is_over_after(0.1)
    assert not deadline.is_over_after(0)
    deadline.reset()
    assert not deadline.is_over_after(0.1)


@pytest.mark.parametrize("seconds", [None, 60.0])
def test_a_request_is_repeated_until_the_first_deadline_is_over(
    seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("SECONDS", 0.3), ("_FIRST_PAUSE", 0.01), ("_LONGEST_PAUSE", 0.02)):
        monkeypatch.setattr(retry, name, value)
    shared: Any = seconds and Deadline(seconds)
    request = Failing(refusal(503, "SlowDown"), times=100)
    with pytest.raises(OSError, match=r"no answer but 'SlowDown' within 0\.3 s: 's3://b/a'\Z") as caught:
        patiently(request, "s3://b/a", shared)
    assert caught.value.errno == errno.EIO
    assert 1 < request.count <= 30


def test_a_success_gives_all_that_share_a_deadline_their_time_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.001)
    shared = Deadline(0.2)
    assert not shared.is_over_after(0)
    time.sleep(0.25)
    with pytest.raises(OSError, match=r"within 0\.2 s"):  # it is over, so there is one attempt
        patiently(Failing(refusal(503)), "s3://b/a", shared)
    assert patiently(lambda: "answer", "s3://b/a", shared) == "answer"
    assert patiently(Failing(refusal(503)), "s3://b/a", shared) == "answer"
