"""Images of the checkout, built and run by buildah and podman on a Debian of this machine's mirror."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
CONTAINERFILE = "deploy/container/Containerfile"
CONTEXT = [".containerignore", "requirements", "requirements.txt", "constraints.txt", "pyproject.toml", "handlers"]
CONTEXT += ["config.properties", "log4j2.xml", "client", "scripts", "deploy", "examples", "docs/use/openapi.yaml"]
TOOLS = ("buildah", "podman", "runc", "mmdebstrap")
BASE_PACKAGES = "python3,python3-venv,ca-certificates"
READY_S, STOP_S = 300, 75
AS_THE_PAGE_SAYS = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "all", "--security-opt", "no-new-privileges")
STORAGE_CONF = """[storage]
driver = "{driver}"
graphroot = "{folder}/storage"
runroot = "{run}"
"""
CONTAINERS_CONF = """[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
tmp_dir = "{run}/libpod"
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
"""


class ContainerTools:
    """buildah and podman with a storage of their own, so that nothing is left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        driver = os.environ.get("STORAGE_DRIVER", "overlay")
        self._run = tempfile.TemporaryDirectory(prefix="run-", dir="/tmp")  # podman takes 50 characters at most
        # An earlier run's podman noted its own folder there, and this one would refuse another. Images stay.
        for record in (*folder.glob("storage/libpod"), *folder.glob("storage/db.sql*")):
            shutil.rmtree(record) if record.is_dir() else record.unlink()
        storage = STORAGE_CONF.format(driver=driver, folder=folder, run=self._run.name)
        self.environment = {"CONTAINERS_STORAGE_CONF": self._write("storage.conf", storage)}
        settings = CONTAINERS_CONF.format(run=self._run.name)
        self.environment["CONTAINERS_CONF"] = self._write("containers.conf", settings)

    def _write(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return str(self.folder / name)

    def call(self, *command: str | Path) -> str:
        """Run a command that asks this buildah or podman; return what it prints."""
        return call(*command, environment=self.environment)

    def buildah(self, *arguments: str | Path) -> str:
        return self.call("buildah", *arguments)

    def podman(self, *arguments: str | Path) -> str:
        return self.call("podman", *arguments)

    def make_base(self) -> str:
        """Return the name of an image with a Debian that has Python. A new one would be no base of kept layers."""
        if self.has("localhost/base"):
            return "localhost/base"
        tar = self.folder / "base.tar"
        if not tar.exists():
            call("mmdebstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", "bookworm", tar)
        working = self.buildah("from", "scratch").strip()
        self.buildah("add", "--quiet", working, tar, "/")
        self.buildah("commit", "--quiet", "--rm", working, "localhost/base")
        return "localhost/base"

    def has(self, image: str) -> bool:
        return image in self.buildah("images", "--format", "{{.Name}}").split()

    def build(self, context: Path, target: str) -> str:
        """Return the name of the image of that target. One of an earlier run in this folder is taken as it is."""
        name = f"localhost/vision-{target}"
        if self.has(name):
            return name
        settings = self.folder / "pip.conf"
        settings.write_text(pip_settings())
        mounts = [f"--volume={path}:{path}:ro" for path in local_places(settings.read_text())]
        own = ["--isolation", "chroot", "--network", "host", "--format", "docker", "--layers"]
        arguments = ["--secret", f"id=pip.conf,src={settings}", "--target", target]
        arguments += ["--build-arg", f"BASE={self.make_base()}"]
        self.buildah("bud", *own, *mounts, *arguments, "--file", context / CONTAINERFILE, "--tag", name, context)
        return name

    def build_file(self, file: Path, context: Path, name: str) -> str:
        """Build an image of a few lines upon one that is here. Return its name."""
        own = ["--isolation", "chroot", "--network", "host", "--format", "docker", "--pull-never"]
        self.buildah("bud", *own, "--file", file, "--tag", name, context)
        return name

    @contextmanager
    def running(
        self, image: str, *options: str | Path, words: Sequence[str] = (), rights: Sequence[str] = AS_THE_PAGE_SAYS
    ) -> Iterator[str]:
        """Run a container and yield its name. words: what follows the image's entry point."""
        name = f"test-{image.rpartition('-')[2]}"
        self.podman("run", "--detach", "--name", name, *rights, *options, image, *words)
        try:
            yield name
        finally:
            self.podman("rm", "--force", "--volumes", "--time", "5", name)

    def all_said(self, name: str) -> str:
        """Return what the container wrote, on both streams."""
        return self.call("sh", "-c", 'podman logs "$0" 2>&1', name)

    def state_of(self, name: str, key: str) -> str:
        return self.podman("inspect", "--format", f"{{{{.State.{key}}}}}", name).strip()


def call(*command: str | Path, environment: Mapping[str, str] | None = None) -> str:
    """Return what it prints. An AssertionError shows what it says of its failure."""
    own = os.environ | (environment or {})
    finished = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=own)
    assert finished.returncode == 0, f"{command[0]} {command[-1]}: {finished.stdout[-2000:]} {finished.stderr[-3000:]}"
    return finished.stdout


def require_tools() -> None:
    """Skip, and say why, where images cannot be built."""
    missing = [name for name in TOOLS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {' '.join(missing)}: apt install buildah podman runc mmdebstrap")
    if os.geteuid() != 0:
        pytest.skip("needs root, for it makes the root of a Debian")


def copy_checkout(folder: Path) -> None:
    """Copy what an image is made of, with a pin of torch whose CPU build can be had here; skip where there is none."""
    for name in CONTEXT:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, place)
    pins = (folder / "constraints.txt").read_text()
    (folder / "constraints.txt").write_text(re.sub(r"(?m)^torch==.*$", f"torch=={find_cpu_build()}", pins))


def find_cpu_build() -> str:
    """Return the version of a CPU build of torch that can be had here, without its `+cpu`."""
    pinned = re.search(r"(?m)^torch==(\S+)$", (ROOT / "constraints.txt").read_text())
    with suppress(OSError):
        socket.getaddrinfo("download.pytorch.org", 443)
        return pinned[1] if pinned else ""
    for folder in re.findall(r"(?m)^find-links = (/\S+)", pip_settings()):
        for path in Path(folder).glob("torch-*+cpu-*.whl"):
            return path.name.split("-")[1].removesuffix("+cpu")
    pytest.skip("needs a CPU build of torch, from PyTorch's index or a folder that pip knows")


def pip_settings() -> str:
    """Return pip's configuration of this machine, from its files and its environment, as one file."""
    lines = call(sys.executable, "-m", "pip", "config", "list").splitlines()
    found = dict(re.findall(r"(?m)^(?:global|:env:)\.+([\w-]+)='(.*)'$", "\n".join(lines)))
    return "[global]\n" + "".join(f"{key} = {value}\n" for key, value in sorted(found.items()))


def local_places(settings: str) -> set[Path]:
    """Return what pip's configuration names on this machine: files, and folders with what their pages link to."""
    named = {Path(path) for path in re.findall(r"(?<![\w.:/])(?:file://)?(/[\w./-]+)", settings)}
    return {path if path.is_file() else path.parent for path in named if path.exists()} - {Path("/")}
