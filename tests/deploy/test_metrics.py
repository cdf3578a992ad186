"""deploy/prometheus: what is scraped is what is exported, and what is drawn is what is scraped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest

from segface_batch.pipeline import metrics
from tests.deploy.files import OVERLAYS, rendered, templates, text, yaml_of

#: Of this project, as Ray's agents export them, with their labels.
OWN = {f"ray_{name}": set(tags) for name, (_, tags) in metrics.COUNTERS.items()} | {f"ray_{metrics.BUSY}": set()}

#: Of Ray itself.
RAYS = {
    "ray_node_cpu_utilization": {"ip"},
    "ray_node_gpus_utilization": {"ip", "GpuIndex"},
    "ray_node_mem_used": {"ip"},
    "ray_object_store_used_memory": set(),
    "ray_spill_manager_objects_bytes": {"State"},
}

METRICS = {name: labels | {"SessionName"} for name, labels in (OWN | RAYS).items()}


def targets() -> list[dict[str, Any]]:
    return [target for panel in json.loads(text("prometheus/dashboard.json"))["panels"] for target in panel["targets"]]


def parsed(target: dict[str, Any]) -> Any:
    return promql_parser.parse(target["expr"].replace("$__rate_interval", "5m"))


def selectors(expression: Any) -> Iterator[Any]:
    """Every metric that an expression reads."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
    elif isinstance(expression, promql_parser.MatrixSelector):
        yield expression.vector_selector
    else:
        inner = getattr(expression, "args", None) or [
            getattr(expression, name) for name in ("expr", "lhs", "rhs") if hasattr(expression, name)
        ]
        for part in inner:
            yield from selectors(part)


def test_the_dashboard_reads_metrics_and_labels_that_exist() -> None:
    read = {selector.name for target in targets() for selector in selectors(parsed(target))}
    assert read == set(METRICS)
    for target in targets():
        for selector in selectors(parsed(target)):
            matched = {matcher.name for matcher in selector.matchers.matchers}
            assert matched <= METRICS[selector.name], target
            shown = {word.split("}}")[0] for word in target["legendFormat"].split("{{")[1:]}
            assert shown <= METRICS[selector.name], target


def test_counters_are_drawn_as_rates_and_by_the_label_that_is_shown() -> None:
    for target in targets():
        for selector in selectors(parsed(target)):
            is_counter = selector.name.endswith("_total")
            assert ("rate(" in target["expr"]) == is_counter, target
            for label in {"status", "error", "stage"}:
                assert (f"{{{{{label}}}}}" in target["legendFormat"]) == (f"by ({label})" in target["expr"]), target


def test_the_dashboard_uses_its_own_variables_only() -> None:
    dashboard = json.loads(text("prometheus/dashboard.json"))
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == ["datasource", "session"]
    sources = [found["datasource"] for panel in dashboard["panels"] for found in (panel, *panel["targets"])]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_pod_monitor_finds_the_port_of_every_ray_node(overlay: str) -> None:
    monitor = yaml_of("prometheus/podmonitor.yaml")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert monitor["spec"]["namespaceSelector"] == {
        "matchNames": [rendered(overlay)["Namespace/segface"]["metadata"]["name"]]
    }
    for name in ("head", "worker"):
        template = templates(overlay)[name]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
        assert ports[endpoint["port"]] == 8080
    sources = [rule["from"] for rule in rendered(overlay)["NetworkPolicy/segface"]["spec"]["ingress"]]
    namespaces = [source[0].get("namespaceSelector", {}).get("matchLabels", {}) for source in sources]
    assert {"kubernetes.io/metadata.name": monitor["metadata"]["namespace"]} in namespaces


def test_prometheus_scrapes_the_port_and_the_cluster_of_the_launcher() -> None:
    on_ec2, here = yaml_of("prometheus/prometheus.yml")["scrape_configs"]
    launcher = yaml_of("aws/cluster.yaml")
    (found,) = on_ec2["ec2_sd_configs"]
    assert found["region"] == launcher["provider"]["region"]
    assert found["filters"] == [{"name": "tag:ray-cluster-name", "values": [launcher["cluster_name"]]}]
    for role in ("head", "worker"):
        assert f"--metrics-export-port={found['port']}" in launcher[f"{role}_start_ray_commands"][1]
    assert f"--metrics-export-port {found['port']}" in text("slurm.sh")
    assert here["file_sd_configs"] == [{"files": ["/tmp/ray/prom_metrics_service_discovery.json"]}]
