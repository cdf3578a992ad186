"""deploy/aws/s3-policy.json: a run passes with exactly these permissions, and each of them is one it needs.

A real S3 server behind a gate (gate.py) that knows IAM policies; not tried on Amazon itself.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from segface_batch import annotate, storage
from segface_batch.output import verify
from tests import drivers
from tests.deploy.files import OVERLAYS, rayjob, text
from tests.deploy.gate import Policy
from tests.fault_proxy import running
from tests.s3_server import REGION, S3Server, secret_of

IN, OUT = "s3://faces-in/images", "s3://faces-out/run-1"
WEIGHTS = "s3://faces-in/weights/convnext_celeba_512.safetensors"

DOCUMENT: dict[str, Any] = json.loads(text("aws/s3-policy.json"))

#: What a run does, as calls of `storage`, and the statements that allow it.
NEEDS: dict[str, tuple[set[str], Callable[[], object]]] = {
    "list the images": ({"ListInput"}, lambda: list(storage.list_objects(IN))),
    "read an image": ({"ReadInput"}, lambda: storage.read(f"{IN}/a.png")),
    "read the weights": ({"ReadInput"}, lambda: storage.read(WEIGHTS)),
    "look for an earlier run": ({"ListOutput", "WriteOutput"}, lambda: missing(f"{OUT}/_segface/none.json")),
    "stage rows": ({"WriteOutput"}, lambda: storage.put(f"{OUT}/_segface/staging/u.arrow", b"")),
    "hold the lease": ({"WriteOutput"}, lambda: storage.replace(f"{OUT}/_segface/lease.json", b"{}")),
    "publish a part": ({"WriteOutput"}, lambda: storage.put(f"{OUT}/stats/part-00000.parquet", b"")),
    "read what is staged": ({"WriteOutput"}, lambda: storage.read(f"{OUT}/_segface/kept.arrow")),
    "find what is staged": ({"ListOutput"}, lambda: storage.list_names(f"{OUT}/_segface", ".arrow")),
    "clear the staging": ({"RemoveStaging"}, lambda: storage.remove([f"{OUT}/_segface/staging/u.arrow"])),
}

#: What these permissions must not allow.
FORBIDDEN: dict[str, Callable[[], object]] = {
    "write into the input": lambda: storage.put(f"{IN}/b.png", b""),
    "replace an image": lambda: storage.replace(f"{IN}/a.png", b""),
    "remove an image": lambda: storage.remove([f"{IN}/a.png"]),
    "remove a part": lambda: storage.remove([f"{OUT}/stats/part-00000.parquet"]),
    "read besides the images": lambda: storage.read("s3://faces-in/private/a.png"),
    "list besides the images": lambda: list(storage.list_objects("s3://faces-in/private")),
    "list the whole input": lambda: list(storage.list_objects("s3://faces-in")),
}


def missing(place: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        storage.read(place)


@pytest.fixture(scope="module")
def store(s3_server: S3Server) -> S3Server:
    client = s3_server.client()
    for bucket in ("faces-in", "faces-out"):
        client.create_bucket(Bucket=bucket)
    for place in (f"{IN}/a.png", WEIGHTS, f"{OUT}/_segface/kept.arrow"):
        bucket, _, key = place.removeprefix("s3://").partition("/")
        client.put_object(Bucket=bucket, Key=key, Body=b"content")
    return s3_server


@contextlib.contextmanager
def permissions(store: S3Server, document: dict[str, Any], folder: Path) -> Iterator[str]:
    """Storage with the permissions of a policy; the file with its options."""
    policy, options = folder / "policy.json", folder / "options.json"
    policy.write_text(json.dumps(document))
    with running("tests.deploy.gate", store.endpoint, "--policy", str(policy)) as gate:
        given = {"key": "ci-admin", "secret": secret_of("ci-admin"), "endpoint_url": gate.url}
        options.write_text(json.dumps(given | {"client_kwargs": {"region_name": REGION}}))
        storage.configure(str(options))
        try:
            yield str(options)
        finally:
            storage.configure(None)


def refused() -> set[str]:
    """The things that a run does and that storage refuses."""
    found = set()
    for what, (_, call) in NEEDS.items():
        try:
            call()
        except PermissionError:
            found.add(what)
    return found


@pytest.mark.parametrize("without", [None, *(statement["Sid"] for statement in DOCUMENT["Statement"])])
def test_a_run_may_do_all_it_does_and_needs_every_statement(
    store: S3Server, tmp_path: Path, without: str | None
) -> None:
    kept = [statement for statement in DOCUMENT["Statement"] if statement["Sid"] != without]
    with permissions(store, DOCUMENT | {"Statement": kept}, tmp_path):
        assert refused() == {what for what, (needed, _) in NEEDS.items() if without in needed}


def test_nothing_else_is_allowed(store: S3Server, tmp_path: Path) -> None:
    with permissions(store, DOCUMENT, tmp_path):
        for what, call in FORBIDDEN.items():
            with pytest.raises(PermissionError):
                print(what, call())


def test_the_policy_is_about_the_places_of_the_manifests() -> None:
    for overlay in OVERLAYS:
        words = rayjob(overlay)["entrypoint"].split()
        assert words[2:4] == [IN, OUT]
        assert words[words.index("--weights") + 1] == WEIGHTS


def test_a_condition_on_the_prefix_hides_which_objects_are_missing() -> None:
    """Why the statement ListOutput has none: a run asks for objects that are not there yet."""
    (listing,) = [statement for statement in DOCUMENT["Statement"] if statement["Sid"] == "ListOutput"]
    bucket = listing["Resource"]
    assert Policy(DOCUMENT).allows("s3:ListBucket", bucket, None)
    listing = listing | {"Condition": {"StringLike": {"s3:prefix": "*"}}}
    assert not Policy(DOCUMENT | {"Statement": [listing]}).allows("s3:ListBucket", bucket, None)


@pytest.mark.long
@pytest.mark.usefixtures("ray_session")
def test_a_whole_run_passes_with_these_permissions(store: S3Server, tmp_path: Path) -> None:
    drivers.write_images(tmp_path / "in")
    client = store.client()
    client.delete_object(Bucket="faces-in", Key="images/a.png")
    for path in (tmp_path / "in").iterdir():
        client.put_object(Bucket="faces-in", Key=f"images/{path.name}", Body=path.read_bytes())
    client.put_object(Bucket="faces-in", Key="images/broken.png", Body=b"")
    with permissions(store, DOCUMENT, tmp_path) as options:
        job = drivers.job(IN, f"{OUT}-whole", storage_options=options)
        assert annotate(job).errors == {"empty": 1}
        again = drivers.job(IN, f"{OUT}-whole", storage_options=options, new=True, retry_errors=True)
        assert annotate(again).errors == {"empty": 1}
        assert verify.verify(f"{OUT}-whole", quick=False).complete
        assert not storage.list_names(f"{OUT}-whole/_segface/staging", "")
