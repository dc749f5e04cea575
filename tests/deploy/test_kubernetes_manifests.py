"""The manifests of Kubernetes: each key is of its API, each name leads somewhere, and our commands take each word."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifests import CRDS, close, find_errors
from overlays import KUBERNETES, find, find_container, list_containers, read_documents, render
from pods import find_loose_mounts, find_rights, find_unknown_ports, list_references

from mar_tools.command_line import ROOT
from mar_tools.front.settings import FrontSettings
from mar_tools.monitoring.readiness import LIVE_PATH, READY_PATH
from mar_tools.serving.setting_names import check_settings
from vision_serving.validation import parse_config
from vision_serving.worker.server_settings import read_properties

PAGE = (ROOT / "docs" / "operate" / "kubernetes.md").read_text(encoding="utf-8")
CONTAINERFILE = (ROOT / "deploy" / "container" / "Containerfile").read_text(encoding="utf-8")
OVERLAYS, SOURCES = ("cpu", "gpu"), ("claim", "fetched", "image")
MADE_BY_HAND = {("Secret", "vision-clients"), ("Secret", "vision-tls")}
MADE_FOR_FETCHING = {("ConfigMap", "vision-keys"), ("Secret", "vision-addresses")}
SERVICE_MONITOR = "ServiceMonitor"
KUBECTL = shutil.which("kubectl")
VERSIONS = ("1.30.0", "1.37.0")  # image volumes came later
RUN_S, NGINX_S, SERVER_S = 290, 180, 75  # a start, nginx's worker_shutdown_timeout, a server's stop


@cache
def rendered(overlay: str, source: str) -> str:
    """Return the objects of an overlay with its archives from that source, as YAML."""
    return yaml.safe_dump_all(render(KUBERNETES / overlay, source))


@pytest.fixture(params=[f"{overlay}-{source}" for overlay in OVERLAYS for source in SOURCES])
def objects(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(rendered(*request.param.split("-"))))


@pytest.fixture
def pod(objects: list[dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = find(objects, "Deployment", "vision")["spec"]["template"]["spec"]
    return spec


def find_faults(document: dict[str, Any], version: str) -> str | None:
    """Return what that version of Kubernetes says against an object of its own."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="needs requirements/dev.txt")
    try:
        kubernetes_validate.validate(document, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{document['kind']}: {error.message}"
    return None


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_each_key(objects: list[dict[str, Any]], version: str) -> None:
    core = [each for each in objects if each["kind"] != SERVICE_MONITOR]
    if version != VERSIONS[-1] and "image:" in yaml.safe_dump(
        find(core, "Deployment", "vision")["spec"]["template"]["spec"]["volumes"]
    ):
        pytest.skip("image volumes came later")
    assert [fault for each in core if (fault := find_faults(each, version))] == []


def test_kubernetes_takes_the_pod_that_fills_the_claim() -> None:
    [pod] = read_documents(KUBERNETES / "models" / "claim" / "fill.yaml")
    assert find_faults(pod, VERSIONS[0]) is None
    assert [right for right in find_rights(pod["spec"]) if right != "fill: /models is writable"] == []


@pytest.mark.parametrize(
    ("name", "misspelt"),
    [
        ("matchLabelKeys", "matchLabelsKeys"),
        ("failureThreshold", "failuresThreshold"),
        ("terminationGracePeriodSeconds", "terminationGraceSeconds"),
        ("readOnlyRootFilesystem", "readOnlyRoot"),
        ("maxUnavailable", "maxUnavailables"),
        ("averageUtilization", "averageUtilisation"),
        ("publishNotReadyAddresses", "publishUnready"),
        ("policyTypes", "policies"),
        ("accessModes", "accessMode"),
    ],
)
def test_kubernetes_refuses_a_misspelt_key(name: str, misspelt: str) -> None:
    text = rendered("cpu", "claim")
    assert f"{name}:" in text
    found = yaml.safe_load_all(text.replace(f"{name}:", f"{misspelt}:"))
    assert any(find_faults(each, VERSIONS[-1]) for each in found if each["kind"] != SERVICE_MONITOR)


@pytest.mark.skipif(KUBECTL is None, reason="needs kubectl")
@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("source", SOURCES)
def test_kustomize_makes_the_same_objects(overlay: str, source: str, tmp_path: Path) -> None:
    copy = shutil.copytree(KUBERNETES, tmp_path / "kubernetes") / overlay
    kustomization = copy / "kustomization.yaml"
    kustomization.write_text(kustomization.read_text().replace("../models/claim", f"../models/{source}", 1))
    sent = subprocess.run([str(KUBECTL), "kustomize", copy], capture_output=True, text=True, check=True).stdout
    assert without_digest(yaml.safe_load_all(sent)) == without_digest(yaml.safe_load_all(rendered(overlay, source)))


def without_digest(documents: Iterable[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return objects by kind and name, where the digest of the settings is gone: kustomize counts it in its own way."""
    texts = (re.sub(r"(vision-settings)-\w{10}\b", r"\1", yaml.safe_dump(each)) for each in documents)
    return {(each["kind"], each["metadata"]["name"]): each for each in map(yaml.safe_load, texts)}


@pytest.mark.skipif(not CRDS.is_dir(), reason=f"needs the resource definitions of Prometheus' operator in {CRDS}")
def test_the_operator_of_prometheus_takes_each_key(objects: list[dict[str, Any]]) -> None:
    document = yaml.safe_load((CRDS / "monitoring.coreos.com_servicemonitors.yaml").read_text(encoding="utf-8"))
    [version] = document["spec"]["versions"]
    schema = close(version["schema"]["openAPIV3Schema"])
    monitor = find(objects, SERVICE_MONITOR, "vision")
    assert find_errors(monitor, schema) == []
    monitor["spec"]["endpoints"][0]["intervals"] = monitor["spec"]["endpoints"][0].pop("interval")
    assert len(find_errors(monitor, schema)) == 1


def test_pods_are_restricted_and_say_their_size(pod: dict[str, Any]) -> None:
    assert list(find_rights(pod)) == []


def test_what_a_pod_names_is_there_or_the_page_says_how_to_make_it(
    objects: list[dict[str, Any]], pod: dict[str, Any]
) -> None:
    there = {(each["kind"], each["metadata"]["name"]) for each in objects}
    missing = set(list_references(pod)) - there
    fetches = list_containers(pod)[0]["name"] == "fetch"
    assert missing == MADE_BY_HAND | (MADE_FOR_FETCHING if fetches else set())
    for kind, name in missing:
        how = "configmap" if kind == "ConfigMap" else r"secret (?:generic|tls)"
        assert re.search(rf"kubectl -n vision create {how} {name}\b", PAGE), name


def test_mounts_are_of_volumes_and_probes_of_ports(pod: dict[str, Any]) -> None:
    assert find_loose_mounts(pod) == set()
    assert list(find_unknown_ports(pod)) == []


def test_selectors_find_the_pods_and_ports_their_numbers(objects: list[dict[str, Any]], pod: dict[str, Any]) -> None:
    deployment = find(objects, "Deployment", "vision")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    # A name would not be found in a sidecar before Kubernetes 1.32.
    ports = {port["containerPort"] for container in list_containers(pod) for port in container.get("ports", ())}
    policy, budget = find(objects, "NetworkPolicy", "vision")["spec"], find(objects, "PodDisruptionBudget", "vision")
    services = [each for each in objects if each["kind"] == "Service"]
    selectors = [deployment["spec"]["selector"]["matchLabels"], policy["podSelector"]["matchLabels"]]
    selectors += [budget["spec"]["selector"]["matchLabels"], *(each["spec"]["selector"] for each in services)]
    selectors += [each["labelSelector"]["matchLabels"] for each in pod["topologySpreadConstraints"]]
    assert all(selector.items() <= labels.items() for selector in selectors)
    assert {port["targetPort"] for each in services for port in each["spec"]["ports"]} == ports
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == ports
    monitor = find(objects, SERVICE_MONITOR, "vision")["spec"]
    metrics = find(objects, "Service", "vision-metrics")
    assert monitor["selector"]["matchLabels"].items() <= metrics["metadata"]["labels"].items()
    assert [each["port"] for each in monitor["endpoints"]] == [each["name"] for each in metrics["spec"]["ports"]]


def test_the_autoscaler_has_the_deployment_to_itself(objects: list[dict[str, Any]]) -> None:
    deployment, scaler = find(objects, "Deployment", "vision"), find(objects, "HorizontalPodAutoscaler", "vision")
    target = scaler["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])
    assert "replicas" not in deployment["spec"], "an apply would undo what the autoscaler did"
    queue = [each["pods"]["metric"]["name"] for each in scaler["spec"]["metrics"] if each["type"] == "Pods"]
    assert queue == ["vision_queue_length"]
    assert f"`{queue[0]}`" in (ROOT / "docs" / "operate" / "monitoring.md").read_text(encoding="utf-8")


def test_all_but_the_namespace_are_in_it(objects: list[dict[str, Any]]) -> None:
    [namespace] = (each["metadata"]["name"] for each in objects if each["kind"] == "Namespace")
    assert {each["metadata"].get("namespace") for each in objects if each["kind"] != "Namespace"} == {namespace}


def test_a_rollout_and_an_eviction_leave_no_gap(objects: list[dict[str, Any]]) -> None:
    spec = find(objects, "Deployment", "vision")["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert find(objects, "PodDisruptionBudget", "vision")["spec"]["maxUnavailable"] == 1
    assert find(objects, "HorizontalPodAutoscaler", "vision")["spec"]["minReplicas"] >= 2


def test_the_server_starts_before_its_front_and_outlives_it(pod: dict[str, Any]) -> None:
    *before, server = pod["initContainers"]
    assert (server["name"], server["restartPolicy"]) == ("server", "Always")
    assert [each["name"] for each in pod["containers"]] == ["front"]
    assert all("restartPolicy" not in each for each in before), "the server waits for their end"
    assert "lifecycle" not in server, "a hook would begin before the front has ended"


def test_there_is_time_for_a_start_and_for_a_drain(pod: dict[str, Any]) -> None:
    server, front = find_container(pod, "server"), find_container(pod, "front")
    startup = server["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] > RUN_S
    assert str(RUN_S) in server["command"]
    pause = front["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= pause + NGINX_S + SERVER_S
    assert f"worker_shutdown_timeout {NGINX_S}s;" in (ROOT / "deploy" / "nginx" / "nginx.conf").read_text()


def test_probes_ask_for_routes_that_there_are(pod: dict[str, Any]) -> None:
    server, front = find_container(pod, "server"), find_container(pod, "front")
    asked = [server[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert asked == [READY_PATH, READY_PATH, LIVE_PATH]
    script = (ROOT / "deploy" / "nginx" / "front.js").read_text(encoding="utf-8")
    assert front["readinessProbe"]["httpGet"]["path"].replace("/", r"\/") in script
    assert "exec" not in yaml.safe_dump(pod), "probes and hooks need no shell"


def test_commands_are_those_of_the_image_with_arguments_that_they_take(
    pod: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, image in (("server", "runtime"), ("front", "front")):
        stage = CONTAINERFILE.partition(f" AS {image}\n")[2].partition("\nFROM ")[0]
        entry = re.findall(r'"([^"]+)"', *re.findall("ENTRYPOINT (.*)", stage)) + re.findall('CMD \\["(run)"]', stage)
        assert find_container(pod, name)["command"][:3] == entry
    monkeypatch.setattr(sys, "argv", find_container(pod, "server")["command"][1:])
    from serve_models import parse_arguments  # type: ignore[import-not-found]

    assert parse_arguments().timeout_s == RUN_S


def test_archives_are_fetched_before_the_server_starts_and_it_cannot_change_them(
    pod: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = find_container(pod, "server")
    [store] = (mount for mount in server["volumeMounts"] if mount["mountPath"] == "/app/model_store")
    assert store["readOnly"] is True
    writers = [
        each["name"]
        for each in list_containers(pod)
        for mount in each["volumeMounts"]
        if mount["name"] == store["name"] and not mount.get("readOnly")
    ]
    assert writers in ([], ["fetch"])
    if writers:
        fetch = find_container(pod, "fetch")
        monkeypatch.setattr(sys, "argv", fetch["command"][1:])
        from fetch_archives import parse_arguments  # type: ignore[import-not-found]

        given = parse_arguments()
        assert (str(given.into), given.addresses) == (store["mountPath"], [])
        mounts = [mount["mountPath"] for mount in fetch["volumeMounts"]]
        assert {str(given.list.parent), *(str(key.parent) for key in given.public_key)} < set(mounts)


SHIPPED = ROOT / "config.properties", ROOT / "deploy" / "nginx" / "front.yaml"


def test_the_settings_are_the_shipped_ones_but_for_where_others_reach_them(objects: list[dict[str, Any]]) -> None:
    [settings] = (each["data"] for each in objects if each["kind"] == "ConfigMap")
    values, shipped = (read_properties(text) for text in (settings["config.properties"], SHIPPED[0].read_text()))
    check_settings(values)
    assert {key: value for key, value in values.items() if shipped.get(key) != value} == {"metrics_host": "0.0.0.0"}
    assert shipped.keys() <= values.keys()
    front, shipped = yaml.safe_load(settings["front.yaml"]), yaml.safe_load(SHIPPED[1].read_text())
    parse_config(FrontSettings, front, "front.yaml")
    changed = {key: value for key, value in front.items() if shipped[key] != value}
    assert changed.keys() == {"listen", "certificate", "certificate_key", "clients", "connections_of_an_address"}
    assert changed["listen"] == "0.0.0.0:8443"


def test_the_files_that_the_front_reads_are_mounted(objects: list[dict[str, Any]], pod: dict[str, Any]) -> None:
    [settings] = (each["data"] for each in objects if each["kind"] == "ConfigMap")
    front = yaml.safe_load(settings["front.yaml"])
    mounts = {mount["mountPath"] for mount in find_container(pod, "front")["volumeMounts"]}
    assert {str(Path(front[key]).parent) for key in ("certificate", "certificate_key", "clients")} <= mounts
