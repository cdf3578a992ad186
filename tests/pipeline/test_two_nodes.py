"""A run on two nodes of which one is killed: everything is there once, and the metrics tell of it."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from segface_batch import storage
from segface_batch.output.verify import verify
from tests import drivers, stand_in
from tests.programs import hosts, two_nodes


def by_node(log: Path) -> Counter[str]:
    """Images parsed by each node."""
    found: Counter[str] = Counter()
    for unit in hosts.parsed(log):
        found[unit.node] += unit.images
    return found


def scraped(url: str) -> dict[str, float]:
    """Our metrics of a node as Prometheus reads them, each summed over its labels but `stage`, without Ray's prefix."""
    found: dict[str, float] = {}
    for line in urllib.request.urlopen(url).read().decode().splitlines():
        if line.startswith("ray_segface_"):
            name, labels, value = re.findall(r"ray_(\w+)\{(.*)\} (\S+)", line)[0]
            stage = re.search(r'stage="(\w+)"', labels)
            name = f"{name} {stage[1]}" if stage else name
            found[name] = found.get(name, 0.0) + float(value)
    return found


@pytest.mark.long
def test_a_run_on_two_nodes_outlives_one(tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    drivers.write_images(tmp_path / "in", marks=dict.fromkeys(range(drivers.IMAGES), stand_in.SLOW))
    begin = time.monotonic()
    with two_nodes.running({stand_in.LOG: str(log)}) as cluster:
        print(f"two nodes after {time.monotonic() - begin:.1f} s")
        driver = drivers.start(tmp_path / "in", out, "--network", "tests.stand_in:Counted", **cluster.environment)
        while len(by_node(log)) < 2:
            assert driver.poll() is None, driver.communicate()
            time.sleep(0.1)
        print(f"both at work after {time.monotonic() - begin:.1f} s")
        cluster.kill_one()
        killed = time.monotonic()
        while ("segface_actors_busy", 1.0) not in scraped(cluster.metrics[0]).items():
            assert driver.poll() is None, driver.communicate()
            time.sleep(0.5)
        _, told = driver.communicate(timeout=120)
        print(
            f"done {time.monotonic() - killed:.1f} s after the kill, {time.monotonic() - begin:.1f} s; {by_node(log)}"
        )
        assert driver.returncode == 0, told
        assert "warning" not in told
        told = scraped(cluster.metrics[0])
    print(told)
    assert 0 < told["segface_images_total"] == told["segface_faces_total"]
    assert told["segface_bytes_total"] > 10**6  # some of them of images that the other node has staged
    for stage in ("fetch", "decode", "network", "encode", "stage"):
        assert told[f"segface_stage_seconds_total {stage}"] > 0
    report = verify(str(out))
    assert report.complete, report
    assert report.status == {"ok": drivers.IMAGES}
    (place,) = [entry.place for entry in storage.list_objects(str(out / "_segface" / "events"))]
    start, *_, end = [json.loads(line) for line in storage.read(place).splitlines()]
    assert (start["event"], start["cluster"]["nodes"], start["actors"]) == ("start", 2, [2, 2])
    assert (end["event"], end["done"], end["total"]) == ("end", drivers.IMAGES, drivers.IMAGES)
