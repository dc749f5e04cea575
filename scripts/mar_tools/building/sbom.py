"""A bill of materials, CycloneDX 1.6: the packages of the environment that packed an archive.

Without a time and a serial number, which the format leaves open: the same environment gives the same bytes.
"""

import platform
import re
import site
from functools import cache
from importlib.metadata import Distribution, distributions
from typing import Any

import orjson

SEPARATORS = re.compile(r"[-_.]+")


@cache
def describe_environment() -> bytes:
    """Describe as JSON all packages that are installed here, and Python."""
    # Not of sys.path, which setuptools extends by its own copies of packages as soon as something imports it.
    parts = distributions(path=site.getsitepackages())
    found = {SEPARATORS.sub("-", part.metadata["Name"]).lower(): part for part in parts if part.metadata["Name"]}
    name, version = platform.python_implementation(), platform.python_version()
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {"type": "platform", "bom-ref": f"python@{version}", "name": name, "version": version}
        },
        "components": [_component(name, found[name]) for name in sorted(found)],
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2)


def _component(name: str, part: Distribution) -> dict[str, Any]:
    place = f"pkg:pypi/{name}@{part.version.replace('+', '%2B')}"
    return {"type": "library", "bom-ref": place, "name": name, "version": part.version, "purl": place}
