"""deploy/aws/cluster.yaml through Ray's own launcher, up to the instances that it starts, on a mock of EC2."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import jsonschema
import pytest

from tests.deploy.files import text, yaml_of
from tests.s3_server import HOST, free_ports

REGION = "us-east-1"

#: Who has which permissions.
PROFILES = {"head": "segface-head", "gpu-spot": "segface-batch"}


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """A launcher file with Ray's defaults, as Ray checks it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(copy.deepcopy(config))
    validate_config(config)
    return config


def test_ray_takes_the_file() -> None:
    config = prepared(yaml_of("aws/cluster.yaml"))
    assert config["head_node_type"] == "head"
    assert config["max_workers"] == config["available_node_types"]["gpu-spot"]["max_workers"]


def test_ray_refuses_a_word_that_it_does_not_know() -> None:
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        prepared(yaml_of("aws/cluster.yaml") | {"max_worker": 8})


def test_nothing_is_installed_besides_the_image() -> None:
    """Ray's defaults for AWS install a nightly wheel."""
    config = prepared(yaml_of("aws/cluster.yaml"))
    for commands in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        assert config[commands] == [], commands
    assert [line.split()[:3] for line in config["initialization_commands"]] == [["aws", "ecr", "get-login-password"]]
    assert "wheel" not in json.dumps(config)


def test_ray_asks_for_its_token_on_every_node() -> None:
    config = prepared(yaml_of("aws/cluster.yaml"))
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    for role in ("head", "worker"):
        stop, start = config[f"{role}_start_ray_commands"]
        assert stop == "ray stop"
        assert "RAY_AUTH_MODE=token ray start" in start
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][1]


def test_the_head_may_give_workers_their_role_and_end_them() -> None:
    config = yaml_of("aws/cluster.yaml")
    statements = {found["Sid"]: found for found in json.loads(text("aws/head-policy.json"))["Statement"]}
    profile = config["available_node_types"]["gpu-spot"]["node_config"]["IamInstanceProfile"]["Name"]
    assert statements["GiveWorkersTheirRole"]["Resource"].endswith(f":role/{profile}")
    assert statements["EndOwnNodes"]["Condition"]["StringEquals"] == {
        "aws:ResourceTag/ray-cluster-name": config["cluster_name"]
    }
    assert statements["StartNodes"]["Condition"]["StringEquals"] == {
        "aws:RequestedRegion": config["provider"]["region"]
    }


@pytest.fixture(scope="module")
def ec2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client for a mock of AWS, which the environment names too; Ray keeps its keys in a home of the test's own."""
    (port,) = free_ports(1)
    endpoint = f"http://{HOST}:{port}"
    home = tmp_path_factory.mktemp("home")
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("0" * 64)
    server = subprocess.Popen(
        [str(Path(sys.executable).with_name("moto_server")), "-H", HOST, "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    settings = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (settings | {"HOME": str(home), "AWS_DEFAULT_REGION": REGION}).items():
            patch.setenv(name, value)
        try:
            wait(endpoint)
            for name in PROFILES.values():
                boto3.client("iam").create_instance_profile(InstanceProfileName=name)
            yield boto3.client("ec2", region_name=REGION)
        finally:
            server.kill()
            server.wait()


def wait(endpoint: str) -> None:
    ends = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"{endpoint}/moto-api/data.json", timeout=5).close()
            return
        except OSError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.1)


@pytest.fixture(scope="module")
def resolved(ec2: Any) -> dict[str, Any]:
    """The launcher file with what Ray found or made in the account: keys, subnets, a security group."""
    from ray.autoscaler._private.commands import _bootstrap_config

    return _bootstrap_config(yaml_of("aws/cluster.yaml"), no_config_cache=True)


def started(ec2: Any, config: dict[str, Any], kind: str, **more: Any) -> dict[str, Any]:
    """The instance that Ray's launcher starts for a node type, with `more` in its node_config."""
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    tags = {
        "ray-node-kind": "head" if kind == config["head_node_type"] else "worker",
        "ray-launch-config": "test",
        "ray-user-node-type": kind,
    }
    (name,) = provider.create_node(config["available_node_types"][kind]["node_config"] | more, tags, 1)
    (found,) = ec2.describe_instances(InstanceIds=[name])["Reservations"]
    return found["Instances"][0]


@pytest.mark.slow
def test_workers_are_spot_instances_with_the_role_for_s3(ec2: Any, resolved: dict[str, Any]) -> None:
    worker, head = (started(ec2, resolved, kind) for kind in ("gpu-spot", "head"))
    assert (worker["InstanceType"], worker["InstanceLifecycle"]) == ("g6.2xlarge", "spot")
    assert (head["InstanceType"], head.get("InstanceLifecycle")) == ("m7i.large", None)
    for instance, profile in ((worker, PROFILES["gpu-spot"]), (head, PROFILES["head"])):
        assert instance["IamInstanceProfile"]["Arn"].endswith(f":instance-profile/{profile}")
        assert instance["MetadataOptions"]["HttpTokens"] == "required"
        assert {tag["Key"]: tag["Value"] for tag in instance["Tags"]}["ray-cluster-name"] == resolved["cluster_name"]
    assert boto3.client("iam").list_roles()["Roles"] == []  # Ray has made none


@pytest.mark.slow
def test_botocore_refuses_a_word_that_ec2_does_not_know(ec2: Any, resolved: dict[str, Any]) -> None:
    with pytest.raises(botocore.exceptions.ParamValidationError, match="InstanceMarketOption"):
        started(ec2, resolved, "gpu-spot", InstanceMarketOption={"MarketType": "spot"})
