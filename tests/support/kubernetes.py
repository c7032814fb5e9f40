"""Strict models of the Kubernetes fields in ``cluster/kuberay``, and KubeRay's own schemas."""

import functools
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from tests.support.cluster_files import Empty, Image, OnlyAll, Positive, Strict, load

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?$")]
Quantity = Annotated[str, StringConstraints(pattern=r"^[1-9]\d*(m|Mi|Gi|Ti)?$")]


class Metadata(Strict):
    name: Name
    labels: dict[str, str] | None = None


class Resources(Strict):
    requests: dict[Literal["cpu", "memory", "nvidia.com/gpu"], Quantity]
    limits: dict[Literal["cpu", "memory", "nvidia.com/gpu"], Quantity]


class Capabilities(Strict):
    drop: OnlyAll


class ContainerSecurity(Strict):
    allowPrivilegeEscalation: Literal[False]
    capabilities: Capabilities
    readOnlyRootFilesystem: bool | None = None


class SeccompProfile(Strict):
    type: Literal["RuntimeDefault"]


class PodSecurity(Strict):
    runAsNonRoot: Literal[True]
    runAsUser: Positive
    runAsGroup: Positive
    fsGroup: Positive
    fsGroupChangePolicy: Literal["OnRootMismatch"] | None = None
    seccompProfile: SeccompProfile


class Exec(Strict):
    command: list[str]


class HttpGet(Strict):
    path: str
    port: str


class Probe(Strict):
    exec: Exec | None = None
    httpGet: HttpGet | None = None
    initialDelaySeconds: Positive | None = None
    periodSeconds: Positive
    timeoutSeconds: Positive | None = None
    failureThreshold: Positive | None = None


class Port(Strict):
    name: Name
    containerPort: Positive


class EnvironmentVariable(Strict):
    name: str
    value: str


class Mount(Strict):
    name: Name
    mountPath: Annotated[str, StringConstraints(pattern="^/")]


class Container(Strict):
    name: Name
    image: Image
    args: list[str] | None = None
    env: list[EnvironmentVariable] | None = None
    ports: list[Port] | None = None
    startupProbe: Probe | None = None
    readinessProbe: Probe
    livenessProbe: Probe
    resources: Resources
    securityContext: ContainerSecurity
    volumeMounts: list[Mount]


class Claim(Strict):
    claimName: Name


class Volume(Strict):
    name: Name
    persistentVolumeClaim: Claim | None = None
    emptyDir: Empty | None = None


class Toleration(Strict):
    key: str
    operator: Literal["Exists"]
    effect: Literal["NoSchedule"]


class PodSpec(Strict):
    automountServiceAccountToken: bool
    securityContext: PodSecurity
    tolerations: list[Toleration] | None = None
    containers: Annotated[list[Container], Field(min_length=1)]
    volumes: list[Volume]


class PodTemplate(Strict):
    metadata: Metadata | dict[Literal["labels"], dict[str, str]] | None = None
    spec: PodSpec


class AuthOptions(Strict):
    mode: Literal["token"]
    secretName: Name


class AutoscalerOptions(Strict):
    version: Literal["v2"]
    upscalingMode: Literal["Default"]
    idleTimeoutSeconds: Positive
    resources: Resources
    securityContext: ContainerSecurity


class HeadGroup(Strict):
    serviceType: Literal["ClusterIP"]
    rayStartParams: dict[Literal["num-cpus", "dashboard-host"], str]
    template: PodTemplate


class WorkerGroup(Strict):
    groupName: Name
    replicas: Annotated[int, Field(ge=0)]
    minReplicas: Annotated[int, Field(ge=0)]
    maxReplicas: Positive
    rayStartParams: dict[Literal["resources"], str]
    template: PodTemplate


class RayClusterSpec(Strict):
    rayVersion: str
    authOptions: AuthOptions
    enableInTreeAutoscaling: Literal[True]
    autoscalerOptions: AutoscalerOptions
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup]


class RayCluster(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: RayClusterSpec


class RayJobSpec(Strict):
    entrypoint: str
    submissionMode: Literal["K8sJobMode"]
    backoffLimit: Positive
    activeDeadlineSeconds: Positive
    shutdownAfterJobFinishes: Literal[True]
    ttlSecondsAfterFinished: Positive
    rayClusterSpec: RayClusterSpec


class RayJob(Strict):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: RayJobSpec


class Selector(Strict):
    matchLabels: dict[str, str]


class Recreate(Strict):
    type: Literal["Recreate"]


class DeploymentSpec(Strict):
    replicas: Literal[1]
    strategy: Recreate
    selector: Selector
    template: PodTemplate


class Deployment(Strict):
    apiVersion: Literal["apps/v1"]
    kind: Literal["Deployment"]
    metadata: Metadata
    spec: DeploymentSpec


class ServicePort(Strict):
    name: Name
    port: Positive
    targetPort: str


class ServiceSpec(Strict):
    type: Literal["ClusterIP"]
    selector: dict[str, str]
    ports: list[ServicePort]


class Service(Strict):
    apiVersion: Literal["v1"]
    kind: Literal["Service"]
    metadata: Metadata
    spec: ServiceSpec


class StorageRequest(Strict):
    requests: dict[Literal["storage"], Quantity]


class ClaimSpec(Strict):
    accessModes: Annotated[
        list[Literal["ReadWriteMany", "ReadWriteOnce"]], Field(min_length=1, max_length=1)
    ]
    resources: StorageRequest


class PersistentVolumeClaim(Strict):
    apiVersion: Literal["v1"]
    kind: Literal["PersistentVolumeClaim"]
    metadata: Metadata
    spec: ClaimSpec


KINDS: dict[str, type[Strict]] = {
    model.__name__: model
    for model in (RayCluster, RayJob, Deployment, Service, PersistentVolumeClaim)
}


@functools.cache
def custom_resource_schema(folder: Path, kind: str) -> dict[str, Any]:
    """JSON schema of a KubeRay resource from its definition, refusing unknown fields."""
    definition = load(folder / f"ray.io_{kind.lower()}s.yaml")
    (version,) = (entry for entry in definition["spec"]["versions"] if entry["name"] == "v1")
    return _strict_schema(version["schema"]["openAPIV3Schema"], top=True)


def _strict_schema(schema: Any, *, top: bool = False) -> Any:  # noqa: ANN401
    """Turn Kubernetes' dialect of OpenAPI into JSON schema."""
    if isinstance(schema, list):
        return [_strict_schema(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    strict = {key: _strict_schema(value) for key, value in schema.items() if key != "properties"}
    if "properties" in schema:
        properties = schema["properties"].items()
        strict["properties"] = {name: _strict_schema(value) for name, value in properties}
        strict.setdefault("additionalProperties", False)
    if top:  # what stands in every object; the definition leaves it open
        strict["properties"]["metadata"] = {"type": "object"}
    if strict.pop("nullable", False):
        strict = {"anyOf": [strict, {"type": "null"}]}
    return strict
