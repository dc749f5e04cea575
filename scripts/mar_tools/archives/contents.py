"""What is in an archive, and what differs between two. Values for scripts/inspect_archive.py, which prints them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from mar_tools.archives.archive import DIGESTS, MANIFEST, SBOM, Archive
from mar_tools.archives.checks import CONFIG, VERIFICATION, read_config
from vision_serving.errors import ConfigError
from vision_serving.worker.model_card import EVIDENCE

Values = dict[str, Any]


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
    return files + [
        difference
        for name, (kind, read) in DOCUMENTS.items()
        if name in changed
        for difference in _compare(kind, read(_read(before, name)), read(_read(after, name)))
    ]


def _compare(kind: str, before: Values, after: Values) -> list[Difference]:
    pairs = {name: (before.get(name), after.get(name)) for name in sorted(before.keys() | after.keys())}
    return [Difference(kind, name, *pair) for name, pair in pairs.items() if pair[0] != pair[1]]


def _read(archive: Archive, name: str) -> Any:
    if name not in archive.entries:
        return {}
    try:
        return read_config(archive, name) if name == CONFIG else orjson.loads(archive.read_document(name))
    except (ValueError, ConfigError):
        return {}  # of another's archive: that the bytes differ is said of the file


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


def _flatten(value: Any) -> Values:
    return dict(_walk(value, ""))


def _evidence(report: Any) -> Values:
    """Return the part of a verification that a model card shows."""
    return _flatten({name: report[name] for name in ("backend", "precision", "bounds", *EVIDENCE) if name in report})


def _packages(bill: Any) -> Values:
    return {component["name"]: component["version"] for component in bill.get("components", ())}


# Files whose values are compared, how, and what a difference is called.
DOCUMENTS: dict[str, tuple[str, Callable[[Any], Values]]] = {
    MANIFEST: ("manifest", _flatten),
    CONFIG: ("config", _flatten),
    "labels.json": ("labels", _flatten),
    VERIFICATION: ("card", _evidence),
    SBOM: ("package", _packages),
}
