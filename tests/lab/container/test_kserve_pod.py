"""The pod that KServe makes of our runtime, run by podman: what KServe fetched lies at /mnt/models."""

import base64
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from overlays import KUBERNETES, find_container, read_documents

from .container_tools import ROOT, ContainerTools
from .pod_tools import Pod, sign_into

SEVEN = ROOT / "examples" / "digits_classification" / "samples" / "seven.png"
MAIN = "kserve-container"


@pytest.fixture
def pod(tools: ContainerTools, images: dict[str, str], keys: Path, tmp_path: Path) -> Iterator[Pod]:
    [runtime] = read_documents(KUBERNETES / "kserve" / "serving_runtime.yaml")
    pod = Pod(tools, images, tmp_path / "pod", runtime["spec"])
    (pod.folder("keys") / "release.pub").write_bytes((keys / "release.pub").read_bytes())
    try:
        yield pod
    finally:
        pod.remove()


def run_main(pod: Pod, archive: Path, key: Path, ends: bool = False) -> str:
    fetched = pod.folder("fetched by kserve")
    sign_into(fetched, archive, key)
    return pod.run(MAIN, "--network", "none", f"--volume={fetched}:/mnt/models:ro", ends=ends)


def test_an_archive_that_another_key_signed_ends_the_container(pod: Pod, archives: Path, keys: Path) -> None:
    with pytest.raises(AssertionError, match=r"digits\.mar: signed by sha256:.* none of the trusted keys"):
        run_main(pod, archives / "digits.mar", keys / "other.key", ends=True)
    assert pod.tools.state_of(MAIN, "ExitCode") == "1"
    assert list(pod.folder("store").iterdir()) == []


def test_both_protocols_are_answered_by_plain_http_without_a_key(
    pod: Pod, archives: Path, keys: Path, tmp_path: Path
) -> None:
    run_main(pod, archives / "digits.mar", keys / "release.key")
    pod.run("front", "--network", f"container:{MAIN}")
    for probe in ("startupProbe", "readinessProbe"):
        pod.becomes(MAIN, probe)
    [port] = (each["containerPort"] for each in find_container(pod.spec, MAIN)["ports"])
    picture = base64.b64encode(SEVEN.read_bytes()).decode()
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [picture]}
    bodies = {"v1": {"instances": [{"b64": picture}]}, "v2": {"inputs": [tensor], "outputs": [{"name": "labels"}]}}
    told = {}
    for name, path in (("v1", "/v1/models/digits:predict"), ("v2", "/v2/models/digits/infer")):
        (tmp_path / name).write_bytes(orjson.dumps(bodies[name]))
        status, _, answer = pod.ask("HTTP", port, "POST", path, str(tmp_path / name)).partition(" ")
        assert status == "200", answer
        told[name] = orjson.loads(answer)
    assert told["v1"]["predictions"][0]["classes"][0]["label"] == "7"
    assert told["v2"]["outputs"][0]["data"][0] == "7"
    assert pod.ask("HTTP", port, "GET", "/v1/models/digits").startswith("200")
    assert pod.ask("HTTP", port, "GET", "/v2/models/digits").startswith("200")
