"""A pod of a manifest, run by podman: its containers' commands, users and mounts. The kubelet's part is the test's."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from overlays import find_container, list_containers

from mar_tools.archives.archive import open_archive
from mar_tools.archives.signing import read_private_key, sign_archive
from mar_tools.waiting import wait_until

from .container_tools import ContainerTools

Document = dict[str, Any]
READY_S = 300
USER = 1000
ADDRESS = "127.0.0.2"  # of the pod, and not the one that loopback alone has
# In the network of the pod, from outside: asks, and prints the status and what is said.
ASK_ONCE = """
import http.client, ssl, sys
scheme, host, port, method, path = sys.argv[1:6]
body = open(sys.argv[6], "rb").read() if sys.argv[6:] else None
if scheme == "HTTP":
    connection = http.client.HTTPConnection(host, int(port), timeout=60)
else:
    context = ssl._create_unverified_context()  # as the kubelet
    connection = http.client.HTTPSConnection(host, int(port), timeout=60, context=context)
try:
    connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
    answer = connection.getresponse()
    print(answer.status, answer.read().decode().strip())
except OSError as error:
    print("0", error)
"""


class Pod:
    """Each volume is a folder of `place`. images: by the names that manifests have.

    The first of its containers that runs has the network.
    """

    def __init__(self, tools: ContainerTools, images: dict[str, str], place: Path, spec: Document) -> None:
        self.tools, self.spec, self._images, self._place = tools, spec, images, place
        self._running: list[str] = []
        for volume in spec["volumes"]:
            folder = self.folder(volume["name"])
            folder.mkdir(parents=True)
            if "emptyDir" in volume:
                os.chown(folder, USER, USER)

    def folder(self, volume: str) -> Path:
        return self._place / volume

    def hand_over(self, secret: Path) -> None:
        """Let the pod's group alone read a file, as the kubelet does."""
        os.chown(secret, 0, USER)
        secret.chmod(0o440)

    def run(self, name: str, *options: str, ends: bool = False) -> str:
        """Run a container with its command and its mounts. Return what it says, where it ends by itself."""
        container = find_container(self.spec, name)
        rights = container["securityContext"]
        assert {**self.spec.get("securityContext", {}), **rights}["runAsUser"] == USER
        assert (rights["readOnlyRootFilesystem"], rights["capabilities"]) == (True, {"drop": ["ALL"]})
        words = [*container["command"], *container.get("args", ())]
        given = ["--name", name, "--entrypoint", words[0], "--user", f"{USER}:{USER}", "--read-only"]
        given += ["--read-only-tmpfs=false", "--cap-drop", "all", "--security-opt", "no-new-privileges"]
        for mount in container["volumeMounts"]:
            source = self.folder(mount["name"]) / mount.get("subPath", "")
            given.append(f"--volume={source}:{mount['mountPath']}{':ro' if mount.get('readOnly') else ''}")
        image = self._images[container["image"].rpartition("/")[2].partition(":")[0]]
        self._running.append(name)
        return self.tools.podman("run", *(() if ends else ("--detach",)), *given, *options, image, *words[1:])

    def stop(self, name: str, most_s: int) -> None:
        """Send the image's stop signal, and wait as long as the pod may take."""
        self.tools.podman("stop", "--time", str(most_s), name)

    def remove(self) -> None:
        for name in reversed(self._running):
            self.tools.podman("rm", "--force", "--volumes", "--ignore", "--time", "5", name)

    def probe(self, name: str, probe: str) -> str:
        """Ask a probe of a container as the kubelet does; return the status, and what is said."""
        container = find_container(self.spec, name)
        asked = container[probe]["httpGet"]
        ports = [each["containerPort"] for each in container["ports"] if asked["port"] in each.values()]
        return self.ask(asked.get("scheme", "HTTP"), ports[0], "GET", asked["path"])

    def becomes(self, name: str, probe: str) -> None:
        ready = wait_until(lambda: self.probe(name, probe).startswith("200"), READY_S, 2.0)
        assert ready, f"{self.probe(name, probe)}: {self.tools.podman('logs', name)[-3000:]}"

    def ask(self, scheme: str, port: int, method: str, path: str, *body: str) -> str:
        client = self.in_network(ASK_ONCE, scheme, ADDRESS, str(port), method, path, *body)
        return client.communicate()[0].strip()

    def in_network(self, program: str, *arguments: str) -> "subprocess.Popen[str]":
        names = [container["name"] for container in list_containers(self.spec)]
        first = next(name for name in self._running if name in names and self.tools.state_of(name, "Running") == "true")
        network = f"/proc/{self.tools.state_of(first, 'Pid')}/ns/net"
        command = ["nsenter", f"--net={network}", sys.executable, "-c", program, *arguments]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def sign_into(folder: Path, archive: Path, key: Path) -> None:
    """Put a copy of an archive there, with its signature by that key."""
    folder.mkdir(parents=True, exist_ok=True)
    copied = Path(shutil.copy(archive, folder))
    copied.chmod(0o644)
    sign_archive(open_archive(copied), read_private_key(key, None))
