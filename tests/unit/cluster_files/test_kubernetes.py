"""KubeRay's manifests: by strict models everywhere, by KubeRay's own schemas where they are."""

import copy
import os
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from pydantic import ValidationError
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)

from dsts_ray.config.load import config_from_yaml
from dsts_ray.launch.capacity import Resources, fits, training_request
from tests.support.cluster_files import CLUSTER, KUBERAY, constraints, load, load_all
from tests.support.jobs import REPOSITORY
from tests.support.kubernetes import KINDS, custom_resource_schema

OBJECTS = {
    f"{path.stem}-{content['kind']}-{content['metadata']['name']}": content
    for path in sorted(KUBERAY.glob("*.yaml"))
    for content in load_all(path)
}
RAY_CLUSTER, RAY_JOB = load(KUBERAY / "ray_cluster.yaml"), load(KUBERAY / "ray_job.yaml")
BROKEN = {
    "misspelt": ("workerGroupSpecs", 0, "minReplica", 1),
    "another type": ("workerGroupSpecs", 0, "maxReplicas", "many"),
}
needs_definitions = pytest.mark.skipif(
    "DSTS_CRDS" not in os.environ,
    reason="DSTS_CRDS names no folder with KubeRay's definitions (ray.io_rayclusters.yaml)",
)


@pytest.mark.parametrize("name", OBJECTS)
def test_every_object_uses_only_known_fields(name: str) -> None:
    content = OBJECTS[name]
    KINDS[content["kind"]].model_validate(content)


@pytest.mark.parametrize("case", BROKEN)
def test_the_models_refuse(case: str) -> None:
    list_name, index, key, value = BROKEN[case]
    broken = copy.deepcopy(RAY_CLUSTER)
    broken["spec"][list_name][index][key] = value
    with pytest.raises(ValidationError, match=key):
        KINDS["RayCluster"].model_validate(broken)


@needs_definitions
@pytest.mark.parametrize("content", [RAY_CLUSTER, RAY_JOB], ids=["RayCluster", "RayJob"])
def test_kuberays_own_schema_takes_it(content: dict[str, Any]) -> None:
    schema = custom_resource_schema(Path(os.environ["DSTS_CRDS"]), content["kind"])
    validator = Draft7Validator(schema)
    assert [error.message for error in validator.iter_errors(content)] == []
    misspelt = copy.deepcopy(content)
    misspelt["spec"]["rayVersions"] = "2"
    assert [error.validator for error in validator.iter_errors(misspelt)] == [
        "additionalProperties"
    ]


def test_a_job_has_the_same_cluster() -> None:
    assert RAY_JOB["spec"]["rayClusterSpec"] == RAY_CLUSTER["spec"]


def test_ray_has_the_version_of_the_image() -> None:
    assert RAY_CLUSTER["spec"]["rayVersion"] == constraints()["ray"]


def test_pods_mount_the_volumes_that_are_claimed() -> None:
    claimed = {
        content["metadata"]["name"]
        for content in OBJECTS.values()
        if content["kind"] == "PersistentVolumeClaim"
    }
    mounted = set()
    for pod in _pods():
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for mount in (mount for part in pod["containers"] for mount in part["volumeMounts"]):
            volume = volumes[mount["name"]]
            if "persistentVolumeClaim" in volume:
                mounted.add(volume["persistentVolumeClaim"]["claimName"])
    assert mounted == claimed


def test_limits_are_requests_where_ray_counts_them() -> None:
    for pod in _pods():
        for container in pod["containers"]:
            if container["name"].startswith("ray"):
                assert container["resources"]["requests"] == container["resources"]["limits"]


def test_the_service_of_mlflow_selects_its_pod_and_its_host_is_allowed() -> None:
    service, deployment = (
        OBJECTS["mlflow-Service-dsts-mlflow"],
        OBJECTS["mlflow-Deployment-dsts-mlflow"],
    )
    pod = deployment["spec"]["template"]
    assert service["spec"]["selector"] == pod["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"]
    address = f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    (allowed,) = (part for part in pod["spec"]["containers"][0]["args"] if "allowed" in part)
    assert address in allowed.partition("=")[2].split(",")
    assert "*" not in allowed
    assert f"tracking.uri=http://{address}" in RAY_JOB["spec"]["entrypoint"].split()


def test_the_entrypoint_resolves_and_fits_the_cluster_at_its_largest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python, script, *arguments = shlex.split(RAY_JOB["spec"]["entrypoint"])
    assert python == "python"
    monkeypatch.setattr(sys, "argv", [script, *arguments, "--dry-run"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(REPOSITORY / script), run_name="__main__")
    assert ended.value.code == 0
    config = config_from_yaml(capsys.readouterr().out)
    assert config.name, "each try must continue the same run"
    assert config.scaling.wait_for_nodes_s > 0, "the autoscaler starts without GPU nodes"
    nodes = _nodes_at_most()
    assert fits(training_request(config), nodes)
    assert not fits(training_request(config), nodes[:-1])


def test_the_image_has_what_the_entrypoint_and_the_mounts_name() -> None:
    dockerfile = (CLUSTER / "Dockerfile").read_text()
    assert "COPY jobs jobs" in dockerfile
    assert "DSTS_HOME=/mnt/dsts" in dockerfile
    mounts = {
        mount["mountPath"]
        for pod in _pods()
        for container in pod["containers"]
        if container["name"].startswith("ray")
        for mount in container["volumeMounts"]
    }
    assert mounts == {"/mnt/dsts"}


def _pods() -> list[dict[str, Any]]:
    spec = RAY_CLUSTER["spec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    deployments = [c["spec"] for c in OBJECTS.values() if c["kind"] == "Deployment"]
    return [group["template"]["spec"] for group in [*groups, *deployments]]


def _nodes_at_most() -> list[Resources]:
    """What Ray's autoscaler reads from the manifest, with every group at its largest."""
    cluster = copy.deepcopy(RAY_CLUSTER)
    cluster["metadata"]["namespace"] = "default"
    node_types = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"].values()
    return [
        node_type["resources"]
        for node_type in node_types
        for _ in range(max(1, node_type["max_workers"]))
    ]
