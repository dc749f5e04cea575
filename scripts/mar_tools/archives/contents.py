"""What is in an archive, and what differs between two. Values for scripts/inspect_archive.py, which prints them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from mar_tools.archives.archive import DIGESTS, MANIFEST, SBOM, Archive
from mar_tools.archives.checks import CONFIG, VERIFICATION, read_config
from vision_serving.errors import ConfigError

Values = dict[str, Any]
# Files whose values are compared; of verification.json and the bill of materials there is too much to list.
DOCUMENTS = {MANIFEST: "manifest", CONFIG: "config", "labels.json": "labels"}


@dataclass(frozen=True)
class Difference:
    """before, after: None where it is only in the other. kind: file, manifest, config, labels or card."""

    kind: str
    name: str
    before: Any
    after: Any


def list_contents(archive: Archive) -> list[Values]:
    """List name, bytes and SHA-256 of each file, as they lie."""
    files = (entry for entry in archive.entries.values() if not entry.is_folder)
    return [{"name": entry.name, "bytes": entry.size, "sha256": archive.digests[entry.name]} for entry in files]


def find_changes(before: Archive, after: Archive) -> list[Difference]:
    """Return every file that differs, and of those that people read the values that do."""
    names = sorted((before.digests.keys() | after.digests.keys()) - {DIGESTS})
    changed = [name for name in names if before.digests.get(name) != after.digests.get(name)]
    files = [Difference("file", name, before.digests.get(name), after.digests.get(name)) for name in changed]
    values = [
        difference
        for name, kind in DOCUMENTS.items()
        if name in changed
        for difference in _compare(kind, _flatten(_read(before, name)), _flatten(_read(after, name)))
    ]
    if VERIFICATION in changed:
        values += _compare("card", _evidence(before), _evidence(after))
    if SBOM in changed:
        values += _compare("package", _packages(before), _packages(after))
    return files + values


def _compare(kind: str, before: Values, after: Values) -> list[Difference]:
    names = sorted(before.keys() | after.keys())
    return [
        Difference(kind, name, before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    ]


def _read(archive: Archive, name: str) -> Any:
    if name not in archive.entries:
        return {}
    try:
        return read_config(archive, name) if name == CONFIG else orjson.loads(archive.read_document(name))
    except (ValueError, ConfigError):
        return {}  # of another's archive: that the bytes differ is said of the file


def _flatten(value: Any) -> Values:
    return dict(_walk(value, ""))


def _walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _walk(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(inner, Mapping | list) for inner in value):
        for index, inner in enumerate(value):
            yield from _walk(inner, f"{path}[{index}]")
    elif isinstance(value, list) and not path:  # labels
        yield from ((str(index), inner) for index, inner in enumerate(value))
    elif path:
        yield path, value


def _evidence(archive: Archive) -> Values:
    """Return the part of a verification that a model card shows."""
    report = _read(archive, VERIFICATION)
    shown = (
        "passed",
        "backend",
        "precision",
        "weights",
        "images",
        "measured",
        "bounds",
        "accuracy",
        "versions",
        "machine",
    )
    return _flatten({name: report[name] for name in shown if name in report})


def _packages(archive: Archive) -> Values:
    components = _read(archive, SBOM).get("components", ())
    return {component["name"]: component["version"] for component in components}
