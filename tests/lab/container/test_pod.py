"""A pod of deploy/kubernetes, run by podman: its commands, probes and hooks as the manifests have them.

What the kubelet does is done by this test: the order of containers, the probes over HTTP, the pause before a stop.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
from container_tools import LIMITS, ROOT, ContainerTools, copy_checkout, require_tools
from overlays import (
    KUBERNETES,
    apply_patches,
    find,
    find_container,
    merge,
    read_documents,
    read_kustomization,
    render,
)

from mar_tools.archives.archive import open_archive
from mar_tools.archives.signing import read_private_key, sign_archive, write_key_pair
from mar_tools.front.certificates import make_certificate
from mar_tools.front.client_keys import ClientKeys
from mar_tools.waiting import wait_until

Document = dict[str, Any]
SEVEN = ROOT / "examples" / "digits_classification" / "samples" / "seven.png"
READY_S = 300
CLIENTS = 4
# In the network of the pod, from outside: asks a probe, and prints the status and what is said.
PROBE = """
import http.client, ssl, sys
scheme, port, path = sys.argv[1:]
context = ssl._create_unverified_context()  # as the kubelet
kind = http.client.HTTPConnection if scheme == "HTTP" else http.client.HTTPSConnection
arguments = {} if scheme == "HTTP" else {"context": context}
connection = kind("127.0.0.2", int(port), timeout=20, **arguments)  # not the address that loopback alone has
try:
    connection.request("GET", path)
    answer = connection.getresponse()
    print(answer.status, answer.read().decode().strip())
except OSError as error:
    print("0", error)
"""
# Clients that ask all the time until standard input ends. Then one sends half of a request, and the rest after a line.
ASK = """
import collections, http.client, json, ssl, sys, threading
picture, key, port, clients = open(sys.argv[1], "rb").read(), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
context, found, over = ssl._create_unverified_context(), collections.Counter(), threading.Event()
headers = {"X-Api-Key": key, "Content-Type": "application/octet-stream", "Content-Length": str(len(picture))}
def begin():
    connection = http.client.HTTPSConnection("127.0.0.2", port, timeout=60, context=context)
    connection.putrequest("POST", "/predictions/digits")
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection
def end(connection, rest):
    connection.send(rest)
    answer = connection.getresponse()
    return f"{answer.status} {json.loads(answer.read())['classes'][0]['label']}"
def ask():
    while not over.is_set():
        try:
            found[end(begin(), picture)] += 1
        except Exception as error:
            found[repr(error)] += 1
        sys.stdout.write("asked\\n")
        sys.stdout.flush()
threads = [threading.Thread(target=ask) for _ in range(clients)]
for thread in threads: thread.start()
sys.stdin.readline()
over.set()
for thread in threads: thread.join()
connection = begin()
connection.send(picture[:100])
print("half", flush=True)
sys.stdin.readline()
found["late: " + end(connection, picture[100:])] += 1
print(json.dumps(found), flush=True)
"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Pod:
    """The pod of cpu/ with fetched archives. Each of its volumes is a folder of `place`."""

    def __init__(self, tools: ContainerTools, images: dict[str, str], place: Path) -> None:
        self.tools, self._images, self._place = tools, images, place
        objects = render_fetched()
        self.spec: Document = find(objects, "Deployment", "vision")["spec"]["template"]["spec"]
        [settings] = (each["data"] for each in objects if each["kind"] == "ConfigMap")
        for volume in self.spec["volumes"]:
            folder = self.folder(volume["name"])
            folder.mkdir()
            if "emptyDir" in volume:
                os.chown(folder, self.spec["securityContext"]["runAsUser"], self.spec["securityContext"]["fsGroup"])
        for name, text in settings.items():
            (self.folder("settings") / name).write_text(text)

    def folder(self, volume: str) -> Path:
        return self._place / volume

    def hand_over(self, secret: Path) -> None:
        """Let the pod's group alone read a file, as the kubelet does."""
        os.chown(secret, 0, self.spec["securityContext"]["fsGroup"])
        secret.chmod(0o440)

    def stop(self, name: str) -> None:
        """Send the image's stop signal, and wait as long as the pod may take."""
        self.tools.podman("stop", "--time", str(self.spec["terminationGracePeriodSeconds"]), name)

    def run(self, name: str, *options: str, wait: bool = False) -> str:
        """Run a container of the pod with its command and its mounts, without any other; return its name."""
        container = find_container(self.spec, name)
        first, *rest = container["command"]
        user = self.spec["securityContext"]
        given = ["--name", name, "--entrypoint", first, "--user", f"{user['runAsUser']}:{user['runAsGroup']}"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        given += ["--read-only", "--read-only-tmpfs=false", "--cap-drop", "all", "--security-opt", "no-new-privileges"]
        for mount in container["volumeMounts"]:
            source = self.folder(mount["name"]) / mount.get("subPath", "")
            given.append(f"--volume={source}:{mount['mountPath']}{':ro' if mount.get('readOnly') else ''}")
        how = () if wait else ("--detach",)
        return self.tools.podman("run", *how, *LIMITS, *given, *options, self._images[container["image"]], *rest)

    def probe(self, name: str, probe: str) -> str:
        """Ask a probe of a container as the kubelet does; return the status, and what is said."""
        container = find_container(self.spec, name)
        asked = container[probe]["httpGet"]
        [port] = (each["containerPort"] for each in container["ports"] if each["name"] == asked["port"])
        return self.in_network(PROBE, asked.get("scheme", "HTTP"), str(port), asked["path"]).communicate()[0].strip()

    def becomes(self, name: str, probe: str) -> None:
        ready = wait_until(lambda: self.probe(name, probe).startswith("200"), READY_S, 2.0)
        assert ready, f"{self.probe(name, probe)}: {self.tools.podman('logs', name)[-3000:]}"

    def in_network(self, program: str, *arguments: str) -> "subprocess.Popen[str]":
        network = f"/proc/{self.tools.state_of('server', 'Pid')}/ns/net"
        command = ["nsenter", f"--net={network}", sys.executable, "-c", program, *arguments]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def render_fetched() -> list[Document]:
    """Render cpu/, but with fetched archives, and without what only others than pods are made of."""
    objects = render(KUBERNETES / "base")
    fetched = KUBERNETES / "models" / "fetched"
    apply_patches(objects, fetched, read_kustomization(fetched, "Component"))
    [sizes] = read_documents(KUBERNETES / "cpu" / "sizes.yaml")
    merge(find(objects, "Deployment", "vision"), sizes)
    return objects


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> ContainerTools:
    require_tools()
    kept = os.environ.get("CONTAINER_FOLDER")  # images of an earlier run; building takes minutes
    return ContainerTools(Path(kept) if kept else tmp_path_factory.mktemp("containers"))


@pytest.fixture(scope="module")
def images(tools: ContainerTools, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    context = tmp_path_factory.mktemp("context")
    copy_checkout(context)
    return {"vision-serving": tools.build(context, "server"), "vision-front": tools.build(context, "front")}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("release.key", "other.key"):
        write_key_pair(folder / name, None)
    return folder


@pytest.fixture
def pod(tools: ContainerTools, images: dict[str, str], keys: Path, tmp_path: Path) -> Iterator[Pod]:
    """A pod whose maps and secrets are made as the page says; only its clients and addresses are missing."""
    place = tmp_path / "pod"
    place.mkdir()
    pod = Pod(tools, images, place)
    shutil.copy(keys / "release.pub", pod.folder("keys"))
    make_certificate(pod.folder("tls") / "tls.crt", pod.folder("tls") / "tls.key", ("localhost",))
    pod.hand_over(pod.folder("tls") / "tls.key")
    try:
        yield pod
    finally:
        for name in ("front", "server", "fetch"):
            tools.podman("rm", "--force", "--ignore", "--time", "5", name)


@contextmanager
def bucket(pod: Pod, archive: Path, key: Path) -> Iterator[None]:
    """Serve an archive and its signature by that key over HTTP, where the pod's list looks for them."""
    folder = pod.folder("models").parent / "bucket"
    folder.mkdir()
    sign_archive(open_archive(Path(shutil.copy(archive, folder))), read_private_key(key, None))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        lines = [f"http://127.0.0.1:{server.server_port}/{path.name}\n" for path in sorted(folder.iterdir())]
        (pod.folder("addresses") / "list").write_text("".join(lines))
        pod.hand_over(pod.folder("addresses") / "list")
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def test_an_archive_that_another_key_signed_ends_the_init_container(pod: Pod, archives: Path, keys: Path) -> None:
    refused = pytest.raises(AssertionError, match=r"digits\.mar: signed by sha256:.* none of the trusted keys")
    with bucket(pod, archives / "digits.mar", keys / "other.key"), refused:
        pod.run("fetch", "--network", "host", wait=True)
    assert pod.tools.state_of("fetch", "ExitCode") == "1", "the kubelet then starts no server"
    assert list(pod.folder("models").iterdir()) == []


def test_the_pod_starts_in_its_order_answers_its_probes_and_loses_no_request_at_its_end(
    pod: Pod, archives: Path, keys: Path
) -> None:
    key = ClientKeys(pod.folder("clients") / "clients.map").add("first")
    pod.hand_over(pod.folder("clients") / "clients.map")
    with bucket(pod, archives / "digits.mar", keys / "release.key"):
        assert "digits 1.0: signed by sha256:" in pod.run("fetch", "--network", "host", wait=True)
    pod.run("server", "--network", "none")
    pod.becomes("server", "startupProbe")
    pod.run("front", "--network", "container:server")
    for name, probe in (("front", "readinessProbe"), ("server", "readinessProbe"), ("server", "livenessProbe")):
        pod.becomes(name, probe)

    front = find_container(pod.spec, "front")
    [port] = (each["containerPort"] for each in front["ports"])
    clients = pod.in_network(ASK, str(SEVEN), key, str(port), str(CLIENTS))
    assert clients.stdin is not None
    assert clients.stdout is not None
    for _ in range(10 * CLIENTS):
        assert clients.stdout.readline() == "asked\n"
    time.sleep(front["lifecycle"]["preStop"]["sleep"]["seconds"])  # the hook: others still send here
    print("over", file=clients.stdin, flush=True)
    assert next(line for line in clients.stdout if line != "asked\n") == "half\n"
    stop = threading.Thread(target=pod.stop, args=("front",))
    stop.start()
    assert wait_until(lambda: shuts_down(pod), READY_S)
    print("the rest", file=clients.stdin, flush=True)
    told = orjson.loads(clients.stdout.read())
    assert clients.wait() == 0
    stop.join()
    assert set(told) == {"200 7", "late: 200 7"}, told
    assert told["200 7"] >= 10 * CLIENTS
    pod.stop("server")
    ends = [pod.tools.state_of(name, "ExitCode") for name in ("front", "server")]
    assert ends == ["0", "0"], pod.tools.podman("logs", "server")[-2000:]


def shuts_down(pod: Pod) -> bool:
    """Return whether nginx takes no more connections."""
    workers = psutil.Process(int(pod.tools.state_of("front", "Pid"))).children()
    return bool(workers) and all("shutting down" in " ".join(worker.cmdline()) for worker in workers)
