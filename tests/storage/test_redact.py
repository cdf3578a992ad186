from __future__ import annotations

from collections.abc import Callable

import pytest

from segface_batch.storage.redact import names_user, one_line, redacted, redacted_text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("/a/b@c/d.jpg?sig=1", "/a/b@c/d.jpg?sig=1"),
        ("s3://bucket/a@b/c d#e.jpg", "s3://bucket/a@b/c d#e.jpg"),
        ("https://host/a.jpg?size=2&page=3#top", "https://host/a.jpg?size=2&page=3#top"),
        ("https://user:pass@host:81/a.jpg", "https://host:81/a.jpg"),
        ("https://token@host?a=1", "https://host?a=1"),
        ("ftp://u:p%40@host/a", "ftp://host/a"),
        ("https://u:p@ss@host/a", "https://host/a"),
        ("simplecache::https://u:p@host/a", "simplecache::https://host/a"),
        ("abfs://container@account.dfs.core.windows.net/a", "abfs://container@account.dfs.core.windows.net/a"),
        (
            "https://b.s3.amazonaws.com/a.jpg?X-Amz-Date=20260102T000000Z&X-Amz-Signature=f00&x-id=GetObject",
            "https://b.s3.amazonaws.com/a.jpg?X-Amz-Date=REDACTED&X-Amz-Signature=REDACTED&x-id=GetObject",
        ),
        (
            "https://b.s3.amazonaws.com/a?AWSAccessKeyId=A&Expires=1&Signature=a%2Bb",
            "https://b.s3.amazonaws.com/a?AWSAccessKeyId=REDACTED&Expires=REDACTED&Signature=REDACTED",
        ),
        (
            "https://a.blob.core.windows.net/c/a.jpg?sv=2026&se=2027&sr=b&sig=x%3D",
            "https://a.blob.core.windows.net/c/a.jpg?sv=2026&se=REDACTED&sr=b&sig=REDACTED",
        ),
        ("https://h/a?access_token=1;%74oken=2&API_KEY=3", "https://h/a?access_token=REDACTED;%74oken=REDACTED&API_KEY=REDACTED"),
    ],
)  # fmt: skip
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert redacted(url) == shown


#: What authorizes requests to Amazon, CloudFront, Google, Azure, and others in any spelling.
SECRETS = [
    "X-Amz-Credential", "x-amz-security-token", "X-Goog-Signature", "X-Goog-Expires", "x-ms-date", "Policy",
    "Key-Pair-Id", "Signature", "Expires", "AWSAccessKeyId", "GoogleAccessId_key", "se", "st", "sig", "hdnea_token",
    "client_secret", "password", "passwd", "db-credentials", "auth", "authorization", "key", "apikey", "keyid", "code",
    "jwt_signature_v2",
]  # fmt: skip


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("form", [str, str.lower, str.upper])
def test_no_parameter_that_authorizes_a_request_is_shown(name: str, form: Callable[[str], str]) -> None:
    url = f"https://host/a.jpg?size=2&{form(name)}="
    assert redacted(f"{url}SECRET&page=3") == f"{url}REDACTED&page=3"


@pytest.mark.parametrize(
    "name", ["size", "page", "sv", "sr", "sp", "keyword", "monkeys", "policies", "zipcode", "sigma"]
)
def test_parameters_that_name_an_image_are_shown(name: str) -> None:
    assert redacted(f"https://host/a.jpg?{name}=1&sig=2") == f"https://host/a.jpg?{name}=1&sig=REDACTED"


def test_urls_in_a_message_are_shown_without_their_secrets() -> None:
    assert redacted_text("no 'https://u:p@h/a?sig=1': S3://b/c, http://h?token=2") == (
        "no 'https://h/a?sig=REDACTED': S3://b/c, http://h?token=REDACTED"
    )


def test_an_error_is_one_line_without_secrets() -> None:
    """A space does not end the place, nor do the words after it become a part of it."""
    error = PermissionError(13, "HTTP 403\nbody", "https://u:p@h/a b.jpg?sig=1")
    assert one_line(error) == "https://h/a b.jpg?sig=REDACTED: HTTP 403"
    assert one_line(OSError("no https://u:p@h/a\nsecond")) == "no https://h/a"


@pytest.mark.parametrize("url", ["https://user@h/a", "https://u:p@h/a", "https://:p@h/a", "https://@h/a", "s3://k:s@b"])
def test_a_url_with_a_user_is_known_for_one(url: str) -> None:
    assert names_user(url)


@pytest.mark.parametrize("place", ["https://h/a@b", "s3://bucket/a@b", "/a@b", "file:///a@b", "abfs://c@a.net/b"])
def test_an_at_elsewhere_is_no_user(place: str) -> None:
    assert not names_user(place)
