"""What must hold of a pod of ours, wherever its manifest is: rights, names, ports."""

from collections.abc import Iterator
from typing import Any

from manifests import CONTAINER, find_rights_of_pod
from overlays import list_containers

Document = dict[str, Any]
SOURCES = {"configMap": ("ConfigMap", "name"), "secret": ("Secret", "secretName")}
SOURCES["persistentVolumeClaim"] = ("PersistentVolumeClaim", "claimName")
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def find_rights(spec: Document) -> Iterator[str]:
    """Yield what a pod is allowed that it does not need, and containers that do not say their size."""
    yield from find_rights_of_pod(spec)
    yield from find_rights_of_containers(spec)


def find_rights_of_containers(spec: Document) -> Iterator[str]:
    for container in list_containers(spec):
        own, sizes = container.get("securityContext", {}), container.get("resources", {})
        yield from (f"{container['name']}: {key}" for key, value in CONTAINER.items() if own.get(key) != value)
        if any(not sizes.get(each, {}).keys() >= {"cpu", "memory"} for each in ("requests", "limits")):
            yield f"{container['name']}: resources"
        yield from (f"{container['name']}: {key} is writable" for key in find_writable(spec, container))


def find_writable(spec: Document, container: Document) -> Iterator[str]:
    """Yield the mounts that a container may write to, but for those of an emptyDir."""
    empty = {volume["name"] for volume in spec["volumes"] if "emptyDir" in volume}
    for mount in container.get("volumeMounts", ()):
        if mount["name"] not in empty and mount.get("readOnly") is not True:
            yield mount["mountPath"]


def find_loose_mounts(spec: Document) -> set[str]:
    """Return names that a mount has and no volume, or a volume and no mount."""
    mounted = {mount["name"] for container in list_containers(spec) for mount in container.get("volumeMounts", ())}
    return mounted ^ {volume["name"] for volume in spec["volumes"]}


def list_references(spec: Document) -> Iterator[tuple[str, str]]:
    """Yield the kind and the name of each object that a pod's volumes are of."""
    for volume in spec["volumes"]:
        for key, (kind, name) in SOURCES.items():
            if key in volume:
                yield kind, volume[key][name]


def find_unknown_ports(spec: Document) -> Iterator[str]:
    """Yield the ports that a probe asks, and its container does not have."""
    for container in list_containers(spec):
        ports = container.get("ports", ())
        known = {port["name"] for port in ports} | {port["containerPort"] for port in ports}
        for name in PROBES:
            for probe in container.get(name, {}).values():
                if isinstance(probe, dict) and probe["port"] not in known:
                    yield f"{container['name']}: {name}: {probe['port']}"
