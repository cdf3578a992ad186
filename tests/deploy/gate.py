"""A proxy before an S3 server that lets through what an IAM policy allows, as Amazon would.

    python -m tests.deploy.gate --upstream URL --policy FILE

Knows the elements that deploy/aws/s3-policy.json has: Allow, Action, Resource with *, StringLike on s3:prefix.  As on
S3, a missing object answers 403 to a user who may not list its bucket.  A condition on s3:prefix does not hold for such
a request, because only listings have a prefix.
(docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html, "Permissions")
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree

from aiohttp import web

from tests.fault_proxy import ERROR_BODY, Proxy

Needed = tuple[str, str, str | None]  # action, resource, prefix

DENIED = 403, {"Content-Type": "application/xml"}, ERROR_BODY.format(code="AccessDenied").encode()


class Policy:
    def __init__(self, document: dict[str, Any]) -> None:
        assert document["Version"] == "2012-10-17"
        self.statements = document["Statement"]
        for statement in self.statements:
            assert statement.keys() - {"Sid", "Condition"} == {"Effect", "Action", "Resource"}, statement
            assert statement["Effect"] == "Allow", statement
            assert statement.get("Condition", {"StringLike": {"s3:prefix": ""}}).keys() == {"StringLike"}, statement

    def allows(self, action: str, resource: str, prefix: str | None) -> bool:
        return any(self._covers(statement, action, resource, prefix) for statement in self.statements)

    def _covers(self, statement: dict[str, Any], action: str, resource: str, prefix: str | None) -> bool:
        condition = statement.get("Condition", {}).get("StringLike", {})
        assert condition.keys() <= {"s3:prefix"}, statement
        return (
            action in _several(statement["Action"])
            and any(fnmatchcase(resource, pattern) for pattern in _several(statement["Resource"]))
            and all(
                prefix is not None and any(fnmatchcase(prefix, pattern) for pattern in _several(patterns))
                for patterns in condition.values()
            )
        )


def _several(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def needed(method: str, raw_path: str, body: bytes) -> Iterator[Needed]:
    """What a request to S3 needs; ValueError for one that the project does not make."""
    url = urlsplit(raw_path)
    bucket, _, key = url.path.lstrip("/").partition("/")
    query, resource = parse_qs(url.query, keep_blank_values=True), f"arn:aws:s3:::{bucket}"
    if not key and method == "GET" and query.get("list-type") == ["2"]:
        yield "s3:ListBucket", resource, unquote(query.get("prefix", [""])[0])
    elif not key and method == "POST" and "delete" in query:
        for element in ElementTree.fromstring(body).iter():
            if element.tag.rpartition("}")[2] == "Key":
                yield "s3:DeleteObject", f"{resource}/{element.text}", None
    elif key and not query.keys() - {"x-id"}:
        action = {"GET": "s3:GetObject", "HEAD": "s3:GetObject", "PUT": "s3:PutObject"}[method]
        yield action, f"{resource}/{unquote(key)}", None
    else:
        raise ValueError(f"{method} {raw_path}")


class Gate(Proxy):
    def __init__(self, upstream: str, policy: Policy) -> None:
        super().__init__(upstream, seed=0)
        self.policy = policy

    async def forward(self, request: web.Request) -> tuple[int, dict[str, str], bytes]:
        permissions = list(needed(request.method, request.raw_path, await request.read()))
        if not all(self.policy.allows(*each) for each in permissions):
            return DENIED
        answer = await super().forward(request)
        bucket = permissions[0][1].partition("/")[0]
        return DENIED if answer[0] == 404 and not self.policy.allows("s3:ListBucket", bucket, None) else answer


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--upstream", required=True, help="URL of the S3 server")
    parser.add_argument("--policy", required=True, type=Path, help="file of the policy")
    chosen = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(Gate(chosen.upstream, Policy(json.loads(chosen.policy.read_text()))).run())
