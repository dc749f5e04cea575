"""What `kubectl apply -k` would send: the few features of kustomize that deploy/kubernetes uses, and no other.

A key that is not known here is refused. So is a patch that names what is not there, where kustomize would add it.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from mar_tools.command_line import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
CLUSTER_WIDE = ("Namespace", "ClusterServingRuntime")
KEYS = {"apiVersion", "kind", "namespace", "resources", "components", "images", "patches", "configMapGenerator"}
# By which lists of objects are merged, and not replaced.
MERGED_BY = {"containers": "name", "initContainers": "name", "volumes": "name", "volumeMounts": "mountPath"}
Document = dict[str, Any]


def render(folder: Path, source: str = "") -> list[Document]:
    """Return the objects of a kustomization, in the order of its files.

    source: the component of models/ that takes the place of the one that it names.
    """
    kustomization = read_kustomization(folder, "Kustomization")
    found: list[Document] = []
    for name in kustomization.get("resources", ()):
        found += read_resource(folder / name)
    found += [generate(folder, each) for each in kustomization.get("configMapGenerator", ())]
    for name in kustomization.get("components", ()):
        if source and name.startswith("../models/"):
            name = f"../models/{source}"
        component = read_kustomization(folder / name, "Component")
        found += [
            each for resource in component.get("resources", ()) for each in read_resource(folder / name / resource)
        ]
        apply_patches(found, folder / name, component)
    apply_patches(found, folder, kustomization)
    for document in found:
        place(document, kustomization)
    rename_generated(found)
    return found


def read_kustomization(folder: Path, kind: str) -> Document:
    found: Document = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    assert found["kind"] == kind, folder
    assert found.keys() <= KEYS, f"{folder}: {found.keys() - KEYS}"
    return found


def read_resource(path: Path) -> list[Document]:
    return render(path) if path.is_dir() else read_documents(path)


def read_documents(path: Path) -> list[Document]:
    return [unshare(document) for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


def unshare(value: Any) -> Any:
    """Copy so that no two places share an object, whatever aliases the file has."""
    if isinstance(value, dict):
        return {key: unshare(entry) for key, entry in value.items()}
    return [unshare(entry) for entry in value] if isinstance(value, list) else value


def generate(folder: Path, generator: Document) -> Document:
    assert generator.keys() == {"name", "files"}
    data = {Path(name).name: (folder / name).read_text(encoding="utf-8") for name in generator["files"]}
    metadata = {"name": generator["name"], "generated": True}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def rename_generated(documents: list[Document]) -> None:
    """Give generated maps a name that their content decides, wherever a volume names them."""
    for document in documents:
        if document["metadata"].pop("generated", False):
            old = document["metadata"]["name"]
            new = f"{old}-{hashlib.sha256(repr(document['data']).encode()).hexdigest()[:10]}"
            document["metadata"]["name"] = new
            for each in walk(documents):
                if isinstance(each.get("configMap"), dict) and each["configMap"].get("name") == old:
                    each["configMap"]["name"] = new


def walk(value: Any) -> Iterator[Document]:
    """Yield each object in a document, at any depth."""
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(each)


def place(document: Document, kustomization: Document) -> None:
    if "namespace" in kustomization and document["kind"] not in CLUSTER_WIDE:
        document["metadata"]["namespace"] = kustomization["namespace"]
    for image in kustomization.get("images", ()):
        assert image.keys() == {"name", "newName", "newTag"}
        for each in walk(document):
            for container in [*each.get("containers", ()), *each.get("initContainers", ())]:
                if container["image"] == image["name"]:
                    container["image"] = f"{image['newName']}:{image['newTag']}"


def apply_patches(documents: list[Document], folder: Path, kustomization: Document) -> None:
    for patch in kustomization.get("patches", ()):
        assert patch.keys() <= {"path", "target"}
        content = unshare(yaml.safe_load((folder / patch["path"]).read_text(encoding="utf-8")))
        if isinstance(content, list):
            target = find(documents, patch["target"]["kind"], patch["target"]["name"])
            for operation in content:
                change(target, operation)
        else:
            merge(find(documents, content["kind"], content["metadata"]["name"]), content)


def find(documents: list[Document], kind: str, name: str) -> Document:
    """Return the one object of that kind and name."""
    (found,) = (each for each in documents if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def change(document: Document, operation: Document) -> None:
    """Do what an operation of RFC 6902 says."""
    *way, last = operation["path"].strip("/").split("/")
    target: Any = document
    for step in way:
        target = target[int(step)] if isinstance(target, list) else target[step]
    name, value = operation["op"], operation.get("value")
    key: Any = last if isinstance(target, dict) else len(target) if last == "-" else int(last)
    if name == "test":
        assert target[key] == value, operation
    elif name == "remove":
        del target[key]
    elif name == "add" and isinstance(target, list):
        target.insert(key, value)
    elif name == "add" or (name == "replace" and target[key] is not None):
        target[key] = value
    else:
        raise AssertionError(operation)


def merge(target: Document, patch: Document) -> None:
    """Merge as a strategic merge does: what a patch names in a list comes first in it."""
    for key, value in patch.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            merge(target[key], value)
        elif key in MERGED_BY:
            by = MERGED_BY[key]
            own = {each[by]: each for each in target[key]}
            for each in value:
                merge(own[each[by]], each)
            named = [own.pop(each[by]) for each in value]
            target[key] = [*named, *own.values()]
        else:
            target[key] = value


def list_containers(spec: Document) -> list[Document]:
    """Return the containers of a pod, in the order of their start."""
    return [*spec.get("initContainers", ()), *spec["containers"]]


def find_container(spec: Document, name: str) -> Document:
    (found,) = (each for each in list_containers(spec) if each["name"] == name)
    return found
