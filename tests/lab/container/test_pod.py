"""A pod of deploy/kubernetes, run by podman: its commands, probes and hooks as the manifests have them.

What the kubelet does is done by this test: the order of containers, the probes over HTTP, the pause before a stop.
"""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import orjson
import psutil
import pytest
from overlays import KUBERNETES, find, find_container, render

from mar_tools.front.certificates import make_certificate
from mar_tools.front.client_keys import ClientKeys
from mar_tools.waiting import wait_until

from .container_tools import ROOT, ContainerTools
from .pod_tools import ADDRESS, READY_S, Pod, sign_into

SEVEN = ROOT / "examples" / "digits_classification" / "samples" / "seven.png"
CLIENTS = 4
# Clients that ask all the time until standard input ends. Then one sends half of a request, and the rest after a line.
ASK = """
import collections, http.client, json, ssl, sys, threading
picture, key, port, clients = open(sys.argv[1], "rb").read(), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
context, found, over = ssl._create_unverified_context(), collections.Counter(), threading.Event()
headers = {"X-Api-Key": key, "Content-Type": "application/octet-stream", "Content-Length": str(len(picture))}
def begin():
    connection = http.client.HTTPSConnection(sys.argv[5], port, timeout=60, context=context)
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


@pytest.fixture
def pod(tools: ContainerTools, images: dict[str, str], keys: Path, tmp_path: Path) -> Iterator[Pod]:
    """A pod whose maps and secrets are made as the page says; only its clients and addresses are missing."""
    objects = render(KUBERNETES / "cpu", "fetched")
    pod = Pod(tools, images, tmp_path / "pod", find(objects, "Deployment", "vision")["spec"]["template"]["spec"])
    [settings] = (each["data"] for each in objects if each["kind"] == "ConfigMap")
    for name, text in settings.items():
        # Its clients ask more than one client may.
        (pod.folder("settings") / name).write_text(text.replace("requests_per_s: 100\n", "requests_per_s: 100000\n"))
    shutil.copy(keys / "release.pub", pod.folder("keys"))
    make_certificate(pod.folder("tls") / "tls.crt", pod.folder("tls") / "tls.key", ("localhost",))
    pod.hand_over(pod.folder("tls") / "tls.key")
    try:
        yield pod
    finally:
        pod.remove()


@contextmanager
def bucket(pod: Pod, archive: Path, key: Path) -> Iterator[None]:
    """Serve an archive and its signature by that key over HTTP, where the pod's list looks for them."""
    folder = pod.folder("bucket")
    sign_into(folder, archive, key)
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
        pod.run("fetch", "--network", "host", ends=True)
    assert pod.tools.state_of("fetch", "ExitCode") == "1", "the kubelet then starts no server"
    assert list(pod.folder("models").iterdir()) == []


def test_the_pod_starts_in_its_order_answers_its_probes_and_loses_no_request_at_its_end(
    pod: Pod, archives: Path, keys: Path
) -> None:
    key = ClientKeys(pod.folder("clients") / "clients.map").add("first")
    pod.hand_over(pod.folder("clients") / "clients.map")
    with bucket(pod, archives / "digits.mar", keys / "release.key"):
        assert "digits 1.0: signed by sha256:" in pod.run("fetch", "--network", "host", ends=True)
    pod.run("server", "--network", "none")
    pod.becomes("server", "startupProbe")
    pod.run("front", "--network", "container:server")
    for name, probe in (("front", "readinessProbe"), ("server", "readinessProbe"), ("server", "livenessProbe")):
        pod.becomes(name, probe)

    front, grace_s = find_container(pod.spec, "front"), pod.spec["terminationGracePeriodSeconds"]
    [port] = (each["containerPort"] for each in front["ports"])
    clients = pod.in_network(ASK, str(SEVEN), key, str(port), str(CLIENTS), ADDRESS)
    assert clients.stdin is not None
    assert clients.stdout is not None
    for _ in range(10 * CLIENTS):
        assert clients.stdout.readline() == "asked\n"
    time.sleep(front["lifecycle"]["preStop"]["sleep"]["seconds"])  # the hook: others still send here
    print("over", file=clients.stdin, flush=True)
    assert next(line for line in clients.stdout if line != "asked\n") == "half\n"
    stop = threading.Thread(target=pod.stop, args=("front", grace_s))
    stop.start()
    assert wait_until(lambda: shuts_down(pod), READY_S)
    print("the rest", file=clients.stdin, flush=True)
    told = orjson.loads(clients.stdout.read())
    assert clients.wait() == 0
    stop.join()
    assert set(told) == {"200 7", "late: 200 7"}, told
    assert told["200 7"] >= 10 * CLIENTS
    pod.stop("server", grace_s)
    ends = [pod.tools.state_of(name, "ExitCode") for name in ("front", "server")]
    assert ends == ["0", "0"], pod.tools.podman("logs", "server")[-2000:]


def shuts_down(pod: Pod) -> bool:
    """Return whether nginx takes no more connections."""
    workers = psutil.Process(int(pod.tools.state_of("front", "Pid"))).children()
    return bool(workers) and all("shutting down" in " ".join(worker.cmdline()) for worker in workers)
