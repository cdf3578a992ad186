"""deploy/kuberay: what kustomize makes of it is valid for KubeRay and Kubernetes, and closed to everybody else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

from segface_batch.command_line import command_line
from segface_batch.pipeline.resources import CPU_THREADS, gpu_threads
from tests.deploy.files import OVERLAYS, rayjob, rendered, templates

#: Derived from the CRD of KubeRay 1.7, see its $comment; refuses unknown fields at any depth.
RAYJOB = json.loads((Path(__file__).parent / "schemas" / "rayjob.v1.schema.json").read_text())

KUBERNETES = "1.34"

#: What a pod needs in a namespace that enforces the "restricted" standard.
POD_SECURITY = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}

pytestmark = pytest.mark.parametrize("overlay", OVERLAYS)


def pods(overlay: str) -> dict[str, dict[str, Any]]:
    return {name: template["spec"] for name, template in templates(overlay).items()}


def test_objects_are_those_of_the_base(overlay: str) -> None:
    assert sorted(rendered(overlay)) == [
        "Namespace/segface",
        "NetworkPolicy/segface",
        "RayJob/segface",
        "ServiceAccount/segface-head",
        "ServiceAccount/segface-worker",
    ]
    places = {found["metadata"].get("namespace", "segface") for found in rendered(overlay).values()}
    assert places == {"segface"}


def test_every_field_is_one_that_kuberay_and_kubernetes_know(overlay: str) -> None:
    for name, found in rendered(overlay).items():
        if name.startswith("RayJob/"):
            jsonschema.Draft202012Validator(RAYJOB).validate(found)
        else:
            kubernetes_validate.validate(found, KUBERNETES, strict=True)
    for name, template in templates(overlay).items():
        pod = {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {"name": name, **template["metadata"]}}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_rules_of_kuberay_that_no_schema_has(overlay: str) -> None:
    job = rayjob(overlay)
    assert job["submissionMode"] == "K8sJobMode"
    assert job["shutdownAfterJobFinishes"]  # ttlSecondsAfterFinished needs it
    assert job["ttlSecondsAfterFinished"] > 0
    assert "clusterSelector" not in job
    # The submitter hands the entrypoint to a shell.
    assert not set(job["entrypoint"]) & set("$`;&|<>*?()\n")
    (workers,) = job["rayClusterSpec"]["workerGroupSpecs"]
    assert 1 <= workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]


def test_the_cluster_asks_for_its_token(overlay: str) -> None:
    assert rayjob(overlay)["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_the_head_has_no_images_and_stays_as_long_as_the_run(overlay: str) -> None:
    head = rayjob(overlay)["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert templates(overlay)["head"]["metadata"]["annotations"] == {
        "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
        "karpenter.sh/do-not-disrupt": "true",
    }


def test_every_container_is_restricted(overlay: str) -> None:
    assert rendered(overlay)["Namespace/segface"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == (
        "restricted"
    )
    for name, pod in pods(overlay).items():
        assert pod["securityContext"].items() >= POD_SECURITY.items(), name
        assert {container["image"] for container in pod["containers"]} == {
            pods(overlay)["head"]["containers"][0]["image"]
        }
        for container in pod["containers"]:
            assert container["securityContext"] == CONTAINER_SECURITY, name
    assert rayjob(overlay)["rayClusterSpec"]["autoscalerOptions"]["securityContext"] == CONTAINER_SECURITY


def test_what_ray_writes_to_is_a_volume(overlay: str) -> None:
    for name, pod in pods(overlay).items():
        (container,) = pod["containers"]
        mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"]}
        assert set(mounted.values()) == set(volumes)
        assert mounted.keys() == ({"/tmp"} if name == "submitter" else {"/tmp", "/cache", "/spill", "/dev/shm"})
        if name != "submitter":
            assert volumes[mounted["/dev/shm"]] == {"medium": "Memory"}
    cluster = rayjob(overlay)["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    for group in (cluster["headGroupSpec"], workers):
        assert group["rayStartParams"]["object-spilling-directory"] == "/spill"


def test_only_the_head_has_permissions_in_kubernetes(overlay: str) -> None:
    found = pods(overlay)
    assert found["head"]["serviceAccountName"] == "segface-head"
    assert found["worker"]["serviceAccountName"] == "segface-worker"
    assert found["worker"]["automountServiceAccountToken"] is False
    assert found["submitter"]["automountServiceAccountToken"] is False
    roles = {
        rendered(overlay)[f"ServiceAccount/segface-{who}"]["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]
        for who in ("head", "worker")
    }
    assert roles == {"arn:aws:iam::111122223333:role/segface-batch"}
    assert "AWS_SECRET" not in json.dumps(rendered(overlay))


def test_the_network_policy_covers_all_pods_and_opens_what_is_needed(overlay: str) -> None:
    policy = rendered(overlay)["NetworkPolicy/segface"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    (label,) = policy["podSelector"]["matchLabels"].items()
    for name, template in templates(overlay).items():
        assert label in template["metadata"]["labels"].items(), name
    ours = [{"podSelector": policy["podSelector"]}]
    ports = {"dashboard": 8265, "metrics": 8080}
    head = {port["name"]: port["containerPort"] for port in pods(overlay)["head"]["containers"][0]["ports"]}
    assert head.items() >= ports.items()
    within, *outside = policy["ingress"]
    assert within == {"from": ours}
    assert [rule["ports"] for rule in outside] == [[{"port": port}] for port in ports.values()]
    assert all(set(source) == {"namespaceSelector"} for rule in outside for source in rule["from"])
    between, names, world = policy["egress"]
    assert between == {"to": ours}
    assert {port["port"] for port in names["ports"]} == {53}
    assert {port["port"] for port in world["ports"]} == {443, 6443}
    assert world["to"] == [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}]


def test_the_least_actors_fit_on_the_workers_that_a_run_starts_with(overlay: str) -> None:
    chosen = command_line().parse_args(rayjob(overlay)["entrypoint"].split()[1:])
    (workers,) = rayjob(overlay)["rayClusterSpec"]["workerGroupSpecs"]
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    least, most = chosen.actors
    gpus, cpus = int(limits.get("nvidia.com/gpu", 0)), int(limits["cpu"])
    assert workers["rayStartParams"].get("num-gpus", "0") == str(gpus)
    threads = gpu_threads(cpus, gpus, chosen.num_gpus) if chosen.num_gpus else CPU_THREADS
    # resources.share leaves one CPU of each node to other tasks.
    room = min(cpus // threads, gpus) if chosen.num_gpus else cpus - 1
    assert least == room * workers["minReplicas"]
    assert least * threads <= cpus - 1
    assert most == room * workers["maxReplicas"]
