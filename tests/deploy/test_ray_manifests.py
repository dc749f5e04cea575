"""The manifests of Ray: the operator takes each key, our commands each argument, and Serve the whole configuration."""

import ast
import importlib.util
import re
import shlex
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from manifests import (
    CRDS,
    close,
    find_errors,
    find_loose_ends,
    find_mount,
    list_pods,
    read_cluster,
    read_manifest,
    read_schema,
)

from mar_tools.command_line import ROOT
from mar_tools.predicting.arguments import RAY, parse_arguments
from mar_tools.predicting.shards import PARQUET
from mar_tools.ray_serving.configuration import Ingresses, plan_serving

NAMES = ("job", "service")
IN_IMAGE = Path("/app")
needs_crds = pytest.mark.skipif(not CRDS.is_dir(), reason=f"needs the resource definitions of KubeRay in {CRDS}")


@pytest.fixture(params=NAMES)
def manifest(request: pytest.FixtureRequest) -> dict[str, Any]:
    return read_manifest(request.param)[0]


def change(document: Any, path: str, name: str) -> None:
    """Rename the last key of a path of keys and positions."""
    *way, last = path.split("/")
    for step in way:
        document = document[int(step) if step.isdecimal() else step]
    document[name] = document.pop(last)


@needs_crds
def test_the_operator_takes_each_key(manifest: dict[str, Any]) -> None:
    assert find_errors(manifest, read_schema(manifest["kind"])) == []


@needs_crds
@pytest.mark.parametrize(
    ("name", "path", "misspelt"),
    [
        ("job", "spec/submissionMode", "submitMode"),
        ("job", "spec/rayClusterSpec/authOptions/mode", "modus"),
        ("job", "spec/rayClusterSpec/headGroupSpec/template/spec/securityContext/runAsNonRoot", "runAsNoRoot"),
        ("job", "spec/rayClusterSpec/workerGroupSpecs/0/template/spec/containers/0/resources/limits", "limit"),
        ("service", "spec/serveConfigV2", "serveConfigV3"),
        ("service", "spec/rayClusterConfig/workerGroupSpecs/0/maxReplicas", "maxReplica"),
        ("service", "spec/rayClusterConfig/headGroupSpec/template/spec/volumes/0/persistentVolumeClaim", "pvc"),
    ],
)
def test_the_operator_refuses_a_misspelt_key(name: str, path: str, misspelt: str) -> None:
    document, _ = read_manifest(name)
    change(document, path, misspelt)
    errors = find_errors(document, read_schema(document["kind"]))
    assert any(f"'{misspelt}' was unexpected" in error for error in errors), errors


@needs_crds
@pytest.mark.parametrize("name", NAMES)
def test_rules_of_a_network_policy_are_rules(name: str) -> None:
    """The operator's own network policies have the rules of Kubernetes in them."""
    cluster = read_cluster_schema()
    rules = cluster["networkPolicy"]["properties"]["head"]["properties"]["ingressRules"]
    _, policy = read_manifest(name)
    assert find_errors(policy["spec"]["ingress"], rules) == []
    change(policy, "spec/ingress/1/ports", "port")
    assert find_errors(policy["spec"]["ingress"], rules) != []


def read_cluster_schema() -> dict[str, Any]:
    spec = read_schema("RayJob")["properties"]["spec"]["properties"]
    properties: dict[str, Any] = spec["rayClusterSpec"]["properties"]
    return properties


def test_an_object_is_closed_unless_it_takes_other_keys() -> None:
    inner = {"type": "object", "properties": {"a": {"type": "string"}}}
    free = {**inner, "x-kubernetes-preserve-unknown-fields": True}
    labels = {"type": "object", "additionalProperties": {"type": "string"}}
    schema = close({"type": "object", "properties": {"inner": inner, "free": free, "labels": labels}})
    assert find_errors({"inner": {"a": ""}, "free": {"b": 1}, "labels": {"b": ""}}, schema) == []
    for wrong in ({"other": 1}, {"inner": {"b": 1}}, {"labels": {"b": 1}}):
        assert len(find_errors(wrong, schema)) == 1


def test_pods_are_restricted_say_their_size_and_send_no_statistics(manifest: dict[str, Any]) -> None:
    assert [list(find_loose_ends(pod)) for pod in list_pods(manifest)] == [[], []]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("spec/securityContext/runAsNonRoot", "securityContext.runAsNonRoot"),
        ("spec/securityContext/seccompProfile", "securityContext.seccompProfile"),
        ("spec/automountServiceAccountToken", "automountServiceAccountToken"),
        ("spec/containers/0/securityContext/capabilities", "ray-head: capabilities"),
        ("spec/containers/0/resources/limits", "ray-head: resources"),
        ("spec/containers/0/env/0/value", "ray-head: RAY_USAGE_STATS_ENABLED"),
    ],
)
def test_a_pod_that_is_less_restricted_is_found(path: str, told: str) -> None:
    head, *_ = list_pods(read_manifest("job")[0])
    change(head, path, "other")
    assert list(find_loose_ends(head)) == [told]


@pytest.mark.parametrize("name", NAMES)
def test_nobody_but_the_operator_reaches_the_dashboard(name: str) -> None:
    manifest, policy = read_manifest(name)
    cluster = read_cluster(manifest)
    head = cluster["headGroupSpec"]
    assert (head["serviceType"], head["enableIngress"]) == ("ClusterIP", False)
    assert cluster["authOptions"] == {"mode": "token"}
    chosen = policy["spec"]["podSelector"]["matchLabels"]
    assert [pod["metadata"]["labels"] for pod in list_pods(manifest)] == [chosen, chosen]
    cluster_itself, *others = policy["spec"]["ingress"]
    assert cluster_itself == {"from": [{"podSelector": {"matchLabels": chosen}}]}
    operator = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kuberay-operator"}}}
    open_ports = {port["port"]: rule["from"] for rule in others for port in rule["ports"]}
    assert open_ports.pop(8265) == [operator]
    assert open_ports == ({8000: [{"podSelector": {}}]} if name == "service" else {})


def test_all_machines_have_one_image_and_the_ray_that_is_required(manifest: dict[str, Any]) -> None:
    images = {container["image"] for pod in list_pods(manifest) for container in pod["spec"]["containers"]}
    assert len(images) == 1
    required = (ROOT / "requirements" / "ray.txt").read_text(encoding="utf-8")
    assert f"ray[serve]>={read_cluster(manifest)['rayVersion'].removesuffix('.0')}," in required


@pytest.mark.parametrize("name", NAMES)
def test_the_requirements_that_the_image_needs_are_there(name: str) -> None:
    text = (ROOT / "deploy" / "kubernetes" / "ray" / f"{name}.yaml").read_text(encoding="utf-8")
    named = re.findall(r"-r (\S+\.txt)", text)
    assert named == ["requirements.txt", "requirements/offline.txt", "requirements/ray.txt"]
    assert all((ROOT / file).is_file() for file in named)


def parse_entrypoint(entrypoint: str, monkeypatch: pytest.MonkeyPatch) -> Namespace:
    """Parse it as the command does."""
    python, script, *arguments = shlex.split(entrypoint)
    assert python == "python"
    assert ROOT / Path(script).relative_to(IN_IMAGE) == ROOT / "scripts" / "predict_images.py"
    monkeypatch.setattr(sys, "argv", [script, *arguments])
    return parse_arguments(None)


def test_the_job_s_command_is_one_that_predict_images_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, _ = read_manifest("job")
    asked = parse_entrypoint(manifest["spec"]["entrypoint"], monkeypatch)
    assert (asked.engine, asked.address, asked.format) == (RAY, "auto", PARQUET)
    assert asked.resume
    assert asked.allow_failed
    (address,) = asked.images
    assert "://" in address
    head, *_ = list_pods(manifest)
    mount, volume = find_mount(head, str(asked.archive))
    assert mount["readOnly"]
    assert volume["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
    mount, volume = find_mount(head, str(asked.output))
    assert "readOnly" not in mount
    assert volume["persistentVolumeClaim"] == {"claimName": "rows"}


@pytest.mark.parametrize(
    ("right", "wrong"), [("--archive", "--archiv3"), ("parquet", "parket"), ("--engine ray", ""), ("--output", "")]
)
def test_a_misspelt_command_is_refused(right: str, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entrypoint = read_manifest("job")[0]["spec"]["entrypoint"]
    assert right in entrypoint
    with pytest.raises(SystemExit):
        parse_entrypoint(entrypoint.replace(right, wrong), monkeypatch)


def read_serve() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(read_manifest("service")[0]["spec"]["serveConfigV2"])
    return document


def test_the_service_has_what_write_config_writes(archive: Path, tmp_path: Path) -> None:
    """But for the paths and the digest."""
    shutil.copy(archive, tmp_path / "digits.mar")
    settings = {"minWorkers": 1, "maxWorkers": 4, "batchSize": 8, "maxBatchDelay": 2}  # as the shipped file has them
    models = orjson.dumps({"digits": {"1.0": settings}}).decode()
    config = tmp_path / "config.properties"
    config.write_text(f"model_store=.\nload_models=digits=digits.mar\nmodels={models}\nmax_request_size=26214400\n")
    groups = read_cluster(read_manifest("service")[0])["workerGroupSpecs"]
    machines = Ingresses(1 + sum(group["replicas"] for group in groups), apart=True)  # the head listens, too
    written = plan_serving(config, ("0.0.0.0", 8000), tmp_path / "clients.map", machines).document
    model, ingress = (application["args"] for application in written["applications"])
    model |= {"archive": "/models/digits.mar", "config": "/models/config.properties", "sha256": "0" * 64}
    ingress["keys"] = "/keys/clients.map"
    assert read_serve() == written


def test_what_the_service_reads_is_mounted_read_only_on_each_machine() -> None:
    model, ingress = (application["args"] for application in read_serve()["applications"])
    for pod in list_pods(read_manifest("service")[0]):
        for path in (model["archive"], model["config"], ingress["keys"]):
            assert find_mount(pod, path)[0]["readOnly"]


def test_import_paths_name_functions_that_are_there() -> None:
    for application in read_serve()["applications"]:
        module, _, name = application["import_path"].partition(":")
        found = importlib.util.find_spec(module)
        assert found is not None
        assert found.origin is not None
        tree = ast.parse(Path(found.origin).read_text(encoding="utf-8"))
        assert name in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def test_the_machines_have_a_core_for_each_replica() -> None:
    model, _ = read_serve()["applications"]
    (deployment,) = model["deployments"]
    (group,) = read_cluster(read_manifest("service")[0])["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    cores = group["replicas"] * int(container["resources"]["limits"]["cpu"])
    assert deployment["autoscaling_config"]["max_replicas"] * deployment["ray_actor_options"]["num_cpus"] <= cores


def test_the_job_s_machines_are_as_many_from_the_start() -> None:
    (group,) = read_cluster(read_manifest("job")[0])["workerGroupSpecs"]
    assert group["minReplicas"] == group["replicas"] == group["maxReplicas"]


def test_serve_reads_the_whole_configuration() -> None:
    assert find_unread(read_serve()) == []


@pytest.mark.parametrize(
    "path",
    [
        "proxy_location",
        "applications/1/route_prefix",
        "applications/0/deployments/0/autoscaling_config/policy/policy_function",
        "applications/0/deployments/0/autoscaling_config/max_replicas",
        "applications/1/deployments/0/user_config",
    ],
)
def test_a_misspelt_key_of_serve_is_found(path: str) -> None:
    document = read_serve()
    change(document, path, "misspelt")
    assert find_unread(document) != []


def find_unread(document: dict[str, Any]) -> list[str]:
    """Return the keys that Serve's own schemas pass over: they refuse few."""
    schema = pytest.importorskip("ray.serve.schema", reason="needs requirements/ray.txt").ServeDeploySchema
    from ray.serve.config import AutoscalingConfig

    read = schema.model_validate(document).model_dump(mode="json", exclude_unset=True)
    for application in read["applications"]:
        for deployment in application["deployments"]:
            if "autoscaling_config" in deployment:  # which the schema leaves as it is
                scaling = AutoscalingConfig.model_validate(deployment["autoscaling_config"])
                deployment["autoscaling_config"] = scaling.model_dump(exclude_unset=True)
    return list(list_missing(document, read))


def list_missing(wanted: Any, found: Any, place: str = "") -> Iterator[str]:
    if isinstance(wanted, dict):
        for key, value in wanted.items():
            if isinstance(found, dict) and key in found:
                yield from list_missing(value, found[key], f"{place}/{key}")
            else:
                yield f"{place}/{key}"
    elif isinstance(wanted, list):
        for number, (one, other) in enumerate(zip(wanted, found, strict=True)):
            yield from list_missing(one, other, f"{place}/{number}")
