"""The manifests of KServe: it takes each key, and the pods that it makes of them have what they name."""

import shlex
import sys
from typing import Any

import pytest
import yaml
from manifests import CRDS, close, find_errors
from overlays import KUBERNETES, find_container, read_documents
from pods import find_loose_mounts, find_rights_of_containers, list_references

from mar_tools.command_line import ROOT
from mar_tools.front.settings import FrontSettings
from vision_serving.validation import parse_config

FOLDER = KUBERNETES / "kserve"
PAGE = (ROOT / "docs" / "operate" / "kubernetes.md").read_text(encoding="utf-8")
RUNTIMES, SERVICES = ("serving_runtime", "cluster_serving_runtime"), ("v1", "v2", "canary")
SHIPPED, BEHIND = (ROOT / "deploy" / "nginx" / name for name in ("front.yaml", "behind_ingress.yaml"))
FETCHED = "/mnt/models"  # where KServe puts what storageUri names, in the container of this name:
MAIN = "kserve-container"
needs_crds = pytest.mark.skipif(not CRDS.is_dir(), reason=f"needs the resource definitions of KServe in {CRDS}")


def read(name: str) -> dict[str, Any]:
    [document] = read_documents(FOLDER / f"{name}.yaml")
    return document


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> dict[str, Any]:
    return read(request.param)


def read_schema(document: dict[str, Any]) -> dict[str, Any]:
    """Return the closed schema of a kind of KServe."""
    path = CRDS / f"serving.kserve.io_{document['kind'].lower()}s.yaml"
    versions = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]["versions"]
    [version] = (each for each in versions if document["apiVersion"] == f"serving.kserve.io/{each['name']}")
    schema: dict[str, Any] = close(version["schema"]["openAPIV3Schema"])
    return schema


@needs_crds
@pytest.mark.parametrize("name", [*RUNTIMES, *SERVICES])
def test_kserve_takes_each_key(name: str) -> None:
    document = read(name)
    assert find_errors(document, read_schema(document)) == []


@needs_crds
@pytest.mark.parametrize(
    ("name", "key", "misspelt"),
    [
        ("serving_runtime", "supportedModelFormats", "modelFormats"),
        ("serving_runtime", "readOnlyRootFilesystem", "readOnlyRoot"),
        ("cluster_serving_runtime", "protocolVersions", "protocols"),
        ("v2", "storageUri", "storageURI"),
        ("canary", "canaryTrafficPercent", "canaryPercent"),
    ],
)
def test_kserve_refuses_a_misspelt_key(name: str, key: str, misspelt: str) -> None:
    schema = read_schema(read(name))
    document = yaml.safe_load((FOLDER / f"{name}.yaml").read_text().replace(f"{key}:", f"{misspelt}:"))
    assert any(f"'{misspelt}' was unexpected" in error for error in find_errors(document, schema))


def test_both_runtimes_are_one() -> None:
    one, other = map(read, RUNTIMES)
    assert one["spec"] == other["spec"]


def test_the_services_have_the_runtime_its_format_and_its_protocol(runtime: dict[str, Any]) -> None:
    [known] = runtime["spec"]["supportedModelFormats"]
    for name in SERVICES:
        model = read(name)["spec"]["predictor"]["model"]
        assert model["runtime"] == runtime["metadata"]["name"]
        assert model["modelFormat"] == {"name": known["name"], "version": known["version"]}
        assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]


def test_a_canary_is_its_service_with_another_archive() -> None:
    before, canary = read("v1"), read("canary")
    predictor = canary["spec"]["predictor"]
    assert 0 < predictor.pop("canaryTrafficPercent") < 100
    assert predictor["model"].pop("storageUri") != before["spec"]["predictor"]["model"].pop("storageUri")
    assert canary == before


def test_containers_have_no_right_that_they_do_not_need(runtime: dict[str, Any]) -> None:
    assert list(find_rights_of_containers(runtime["spec"])) == []
    for container in runtime["spec"]["containers"]:
        assert container["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}


def test_what_the_pod_names_is_there_or_the_page_says_how_to_make_it(runtime: dict[str, Any]) -> None:
    assert find_loose_mounts(runtime["spec"]) == set()
    assert list(list_references(runtime["spec"])) == [("ConfigMap", "vision-keys")]
    assert "kubectl -n models create configmap vision-keys --from-file=keys/release.pub" in PAGE


def test_the_server_starts_when_signatures_are_right(runtime: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    main = find_container(runtime["spec"], MAIN)
    [line] = main["args"]
    words = shlex.split(line)
    at = words.index("&&")
    fetch, serve = words[:at], words[at + 1 :]
    assert (fetch[:2], main["command"]) == (["python", "scripts/fetch_archives.py"], ["bash", "-c"])
    assert serve[:4] == ["exec", "python", "scripts/serve_models.py", "run"], "signals reach the server itself"
    monkeypatch.setattr(sys, "argv", fetch[1:])
    from fetch_archives import parse_arguments  # type: ignore[import-not-found]

    given = parse_arguments()
    assert given.addresses == [FETCHED]
    mounts = {mount["mountPath"] for mount in main["volumeMounts"]}
    assert {f"/app/{given.into}", *(str(key.parent) for key in given.public_key)} <= mounts


def test_kserve_and_the_probes_ask_where_the_front_listens(runtime: dict[str, Any]) -> None:
    main, front = (find_container(runtime["spec"], name) for name in (MAIN, "front"))
    settings = ROOT / front["command"][front["command"].index("--settings") + 1]
    port = int(yaml.safe_load(settings.read_text())["listen"].rpartition(":")[2])
    assert [each["containerPort"] for each in main["ports"]] == [port]
    assert {main[name]["httpGet"]["port"] for name in ("startupProbe", "readinessProbe")} == {port}
    assert not {"ports", "readinessProbe", "livenessProbe", "lifecycle"} & front.keys(), "as Knative wants it"


def test_the_settings_of_that_front_are_the_shipped_ones_but_for_those_of_an_ingress() -> None:
    shipped, behind = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in (SHIPPED, BEHIND))
    parse_config(FrontSettings, behind, BEHIND.name)
    changed = {key for key, value in behind.items() if shipped[key] != value}
    limits = {"requests_per_s", "burst", "concurrent_requests", "connections_of_an_address", "costly_of_a_client"}
    assert changed == {"listen", "tls", "only_client"} | limits
