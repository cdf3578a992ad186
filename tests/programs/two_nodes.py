"""A Ray cluster of two nodes on this machine, in a process of its own, for tests that kill one.

python -m tests.programs.two_nodes    prints a line of JSON: address, token and ports of metrics; `kill` on stdin ends
                                      the second node without notice, the end of stdin the cluster
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.s3_server import free_ports

#: One CPU for an actor, one for the tasks that wait for storage.
CPUS = 2


@dataclass
class TwoNodes:
    process: subprocess.Popen[str]
    environment: dict[str, str]  # of a driver
    metrics: list[str]  # a URL for each node

    def kill_one(self) -> None:
        """End the second node; returns when all its processes are gone."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("kill\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "killed\n"


@contextmanager
def running(nodes: dict[str, str], **resources: Any) -> Iterator[TwoNodes]:
    """`nodes` is the environment of the nodes, `resources` what each has besides CPUS."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    settings = {"RAY_metrics_report_interval_ms": "1000", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-m", "tests.programs.two_nodes", json.dumps(resources)]
    environment = {**os.environ, **token, **settings, **nodes}
    environment.pop("RAY_ADDRESS", None)
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        command, cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        told = json.loads(next(line for line in process.stdout if line.startswith("{")))
        yield TwoNodes(process, token | {"RAY_ADDRESS": told["address"]}, told["metrics"])
        assert process.stdin is not None
        process.stdin.close()
        process.wait(60)


def main(resources: str) -> None:
    from ray.cluster_utils import Cluster

    *ports, gcs, agent = free_ports(4)
    settings = {"num_cpus": CPUS, **json.loads(resources)}
    cluster = Cluster()
    own = {"gcs_server_port": gcs, "dashboard_agent_listen_port": agent, "include_dashboard": False}
    cluster.add_node(metrics_export_port=ports[0], **own, **settings)
    second = cluster.add_node(metrics_export_port=ports[1], **settings)
    urls = [f"http://127.0.0.1:{port}/metrics" for port in ports]
    print(json.dumps({"address": cluster.address, "metrics": urls}), flush=True)
    for line in sys.stdin:
        if line == "kill\n":
            cluster.remove_node(second, allow_graceful=False)
            print("killed", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1])
