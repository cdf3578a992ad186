"""A reverse proxy in front of an S3 server that injects faults by rule.

Without rules it is transparent: signatures, checksums and conditional requests pass unchanged,
because the Host header is the client's.  (It sends a Content-Length upstream even where the client
sent none, so it hides a store's 411 answers.)

In a test:

    with running_proxy(s3_server.endpoint, seed=7) as proxy:
        proxy.set_faults([{"method": "PUT", "match": "/commits/", "fault": "lost_ack", "times": 1}])
        ...  # use proxy.url as the S3 endpoint
        assert proxy.stats()["counts"]["fault:lost_ack"] == 1

A rule is an object:

    fault    one of the names below
    method   "GET", "PUT", ...; default any
    match    substring of the path with its query; default any
    header   a header that the request has; default any
    times    how often it applies; default -1, always
    p        probability, default 1; drawn from the seed, the rule, the method, the path and how
             many such requests came before, so the same seed hits the same requests in any order
    seconds  for `stall` (default 3600) and `latency` (default 1)

The first rule that applies decides.  Faults:

    slowdown   503 SlowDown              denied    403 AccessDenied
    error500   500 InternalError         conflict  409 ConditionalRequestConflict
    skewed     403 RequestTimeTooSkewed            unknown   501 NotImplemented
    no_md5     400 MissingContentMD5               invalid   400 InvalidArgument
    reset      connection reset, nothing forwarded
    stall      no answer for `seconds`, then a reset, nothing forwarded
    latency    forwarded after `seconds`
    lost_ack   forwarded and done by the store, but the connection is reset instead of answered
    partial    the headers and half of the body, then a reset
    short      half of the body with a Content-Length that agrees
    flip       one byte in the middle of the body inverted
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import random
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

Rule = dict[str, Any]

HOST = "127.0.0.1"

ERRORS = {
    "slowdown": (503, "SlowDown"),
    "error500": (500, "InternalError"),
    "denied": (403, "AccessDenied"),
    "conflict": (409, "ConditionalRequestConflict"),
    "skewed": (403, "RequestTimeTooSkewed"),
    "unknown": (501, "NotImplemented"),
    "no_md5": (400, "MissingContentMD5"),
    "invalid": (400, "InvalidArgument"),
}
FAULTS = {*ERRORS, "reset", "stall", "latency", "lost_ack", "partial", "short", "flip"}
ERROR_BODY = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    "<Error><Code>{code}</Code><Message>injected</Message><RequestId>0</RequestId></Error>"
)
NOT_FORWARDED = {"transfer-encoding", "connection", "expect", "content-length"}
LOG_LENGTH = 200
#: Bytes; bodies are held in memory.
LARGEST_BODY = 1 << 30


class Proxy:
    def __init__(self, upstream: str, seed: int) -> None:
        self.upstream = upstream
        self.seed = seed
        self.set_rules([])

    def set_rules(self, rules: list[Rule]) -> None:
        for rule in rules:
            if rule["fault"] not in FAULTS:
                raise ValueError(f"unknown fault {rule['fault']!r}, not one of {sorted(FAULTS)}")
        self.rules = [{"times": -1, **rule} for rule in rules]
        self.counts: collections.Counter[str] = collections.Counter()
        self.seen: collections.Counter[tuple[str, str]] = collections.Counter()
        self.log: collections.deque[tuple[str, str, str | None]] = collections.deque(maxlen=LOG_LENGTH)

    def pick(self, method: str, path: str, headers: Mapping[str, str]) -> Rule:
        """The rule that applies to this request, or {}; counts the request."""
        self.seen[method, path] += 1
        chosen: Rule = {}
        for number, rule in enumerate(self.rules):
            draw = random.Random(f"{self.seed} {number} {method} {path} {self.seen[method, path]}")
            if (
                rule.get("method", method) == method
                and rule.get("match", "") in path
                and rule.get("header", "Host") in headers
                and rule["times"] != 0
                and draw.random() < rule.get("p", 1)
            ):
                rule["times"] -= rule["times"] > 0
                chosen = rule
                break
        fault = chosen.get("fault")
        self.counts[method] += 1
        if fault:
            self.counts[f"fault:{fault}"] += 1
        self.log.append((method, path, fault))
        return chosen

    async def control(self, request: web.Request) -> web.Response:
        if request.path == "/__stats__":
            return web.json_response({"counts": self.counts, "log": list(self.log)})
        try:
            self.set_rules(await request.json())
        except (ValueError, KeyError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({})

    async def handle(self, request: web.Request) -> web.StreamResponse:
        rule = self.pick(request.method, request.raw_path, request.headers)
        fault = rule.get("fault")
        if fault in ERRORS:
            await request.read()
            status, code = ERRORS[fault]
            text = ERROR_BODY.format(code=code)
            return web.Response(status=status, content_type="application/xml", text=text)
        if fault == "reset":
            return reset(request)
        if fault == "stall":
            await asyncio.sleep(rule.get("seconds", 3600))
            return reset(request)
        if fault == "latency":
            await asyncio.sleep(rule.get("seconds", 1))
        try:
            status, headers, body = await self.forward(request)
        except aiohttp.ClientError:  # the store is down
            return reset(request)
        if fault == "lost_ack":
            return reset(request)
        if fault == "flip" and body:
            middle = len(body) // 2
            body = body[:middle] + bytes([body[middle] ^ 0xFF]) + body[middle + 1 :]
        if fault == "short":
            body = body[: len(body) // 2]

        response = web.StreamResponse(status=status, headers=headers)
        is_head = request.method == "HEAD"
        response.content_length = int(headers.get("Content-Length", 0)) if is_head else len(body)
        if "Content-Type" not in headers:
            response.headers.pop("Content-Type", None)
        await response.prepare(request)
        if not is_head:
            if fault == "partial":
                await response.write(body[: max(1, len(body) // 2)])
                await asyncio.sleep(0.05)  # so that this half leaves before the reset
                reset(request)
                return response
            await response.write(body)
        with contextlib.suppress(ConnectionError):  # the client went away
            await response.write_eof()
        return response

    async def forward(self, request: web.Request) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the store's answer."""
        body = await request.read()
        async with self.session.request(
            request.method,
            URL(self.upstream + request.raw_path, encoded=True),
            headers={k: v for k, v in request.headers.items() if k.lower() not in NOT_FORWARDED},
            data=body if body or request.method in ("PUT", "POST") else None,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            allow_redirects=False,
        ) as answer:
            keep = NOT_FORWARDED - {"content-length"}
            headers = {k: v for k, v in answer.headers.items() if k.lower() not in keep}
            return answer.status, headers, await answer.read()

    async def run(self) -> None:
        async with aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None),
            connector=aiohttp.TCPConnector(limit=0),
            auto_decompress=False,
        ) as self.session:
            app = web.Application(client_max_size=LARGEST_BODY)
            app.router.add_post("/__faults__", self.control)
            app.router.add_get("/__stats__", self.control)
            app.router.add_route("*", r"/{path:[\s\S]*}", self.handle)
            runner = web.AppRunner(app, access_log=None, handler_cancellation=True)
            await runner.setup()
            await web.TCPSite(runner, HOST, 0).start()
            print(f"ready http://{HOST}:{runner.addresses[0][1]}", flush=True)
            await asyncio.Event().wait()


def reset(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


class RunningProxy:
    """What a test sees of a proxy in another process."""

    def __init__(self, url: str) -> None:
        self.url = url

    def _call(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(self.url + path, data=data, timeout=10) as answer:
            return json.load(answer)

    def set_faults(self, rules: list[Rule]) -> None:
        self._call("/__faults__", rules)

    def stats(self) -> dict[str, Any]:
        return self._call("/__stats__")


@contextlib.contextmanager
def running_proxy(upstream: str, seed: int = 0) -> Iterator[RunningProxy]:
    """A proxy on a free loopback port, in a process of its own."""
    with running("tests.fault_proxy", upstream, "--seed", str(seed)) as proxy:
        yield proxy


@contextlib.contextmanager
def running(module: str, upstream: str, *options: str) -> Iterator[RunningProxy]:
    """The proxy that a module is."""
    command = [sys.executable, "-m", module, "--upstream", upstream, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    assert process.stdout is not None
    try:
        words = process.stdout.readline().split()
        if words[:1] != ["ready"]:
            raise RuntimeError("the proxy did not start")
        yield RunningProxy(words[1])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--upstream", required=True, help="URL of the S3 server")
    parser.add_argument("--seed", type=int, default=0, help="for rules with a probability")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(Proxy(options.upstream, options.seed).run())
