"""Manifests of Kubernetes, and the schemas of what the operator of Ray takes, in which unknown keys are refused."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
import yaml
from overlays import unshare

from mar_tools.command_line import ROOT

FOLDER = ROOT / "deploy" / "kubernetes" / "ray"
CRDS = ROOT.parent / "shared" / "schemas"  # not part of the project
NETWORK_POLICY = "NetworkPolicy"
CONTAINER = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
POD = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def read_manifest(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the object of the operator, and the network policy beside it, without YAML's aliases."""
    first, policy = yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    assert policy["kind"] == NETWORK_POLICY
    return unshare(first), unshare(policy)


def close(schema: Any) -> Any:
    """Return a schema whose objects take no other keys than those that they list, unless they say so."""
    if isinstance(schema, list):
        return [close(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: close(entry) for key, entry in schema.items()}
    lists_all = isinstance(schema.get("properties"), dict) and "type" in schema
    if lists_all and not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
        closed["additionalProperties"] = False
    return closed


@cache  # the documents are megabytes of YAML
def read_schema(kind: str) -> dict[str, Any]:
    """Return the closed schema of v1 of a kind of the operator: RayJob, RayService."""
    document = yaml.safe_load((CRDS / f"ray.io_{kind.lower()}s.yaml").read_text(encoding="utf-8"))
    (version,) = (each for each in document["spec"]["versions"] if each["name"] == "v1")
    schema: dict[str, Any] = close(version["schema"]["openAPIV3Schema"])
    return schema


def find_errors(document: Any, schema: dict[str, Any]) -> list[str]:
    return [
        f"{error.json_path}: {error.message}" for error in jsonschema.Draft202012Validator(schema).iter_errors(document)
    ]


def read_cluster(manifest: dict[str, Any]) -> dict[str, Any]:
    spec = manifest["spec"]
    cluster: dict[str, Any] = spec.get("rayClusterSpec") or spec["rayClusterConfig"]
    return cluster


def list_pods(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the pod templates: the head's, then those of the other machines."""
    cluster = read_cluster(manifest)
    return [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]


def find_rights_of_pod(spec: dict[str, Any]) -> Iterator[str]:
    """Yield what all containers of a pod are allowed that they do not need."""
    settings = spec.get("securityContext", {})
    yield from (f"securityContext.{key}" for key, value in POD.items() if settings.get(key) != value)
    if not settings.get("runAsUser"):
        yield "securityContext.runAsUser"
    if spec.get("automountServiceAccountToken") is not False:
        yield "automountServiceAccountToken"


def find_loose_ends(pod: dict[str, Any]) -> Iterator[str]:
    """Yield what a pod is allowed that it does not need, and what it does not say of its size."""
    spec = pod["spec"]
    yield from find_rights_of_pod(spec)
    for container in spec["containers"]:
        own, sizes = container.get("securityContext", {}), container.get("resources", {})
        yield from (f"{container['name']}: {key}" for key, value in CONTAINER.items() if own.get(key) != value)
        if not sizes.get("requests", {}).keys() >= {"cpu", "memory"} or sizes["requests"] != sizes.get("limits"):
            yield f"{container['name']}: resources"
        if {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} not in container.get("env", []):
            yield f"{container['name']}: RAY_USAGE_STATS_ENABLED"


def find_mount(pod: dict[str, Any], path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the mount that a path lies in, and its volume."""
    (container,) = pod["spec"]["containers"]
    (mount,) = (each for each in container["volumeMounts"] if path.startswith(each["mountPath"] + "/"))
    (volume,) = (each for each in pod["spec"]["volumes"] if each["name"] == mount["name"])
    return mount, volume
