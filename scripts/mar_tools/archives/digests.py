"""What a verification is of: SHA-256 over an artifact, and over the configuration. Nothing here needs PyTorch."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from vision_serving.config import HandlerConfig


def select_artifact(names: Iterable[str], artifact: str) -> list[str]:
    """Select an artifact's files, sorted: all in its folder, or a file and its siblings of the same stem."""
    known = [PurePosixPath(name) for name in names]
    inside = [path for path in known if PurePosixPath(artifact) in path.parents]
    stem = f"{PurePosixPath(artifact).stem}."
    found = inside or [path for path in known if len(path.parts) == 1 and path.name.startswith(stem)]
    return [path.as_posix() for path in sorted(found)]


def combine_digests(digests: Mapping[str, str]) -> str:
    """Combine digests of files by their names, in this order. digests: SHA-256, in hexadecimal."""
    combined = hashlib.sha256()
    for name, digest in digests.items():
        combined.update(name.encode() + b"\0")
        combined.update(bytes.fromhex(digest))
    return combined.hexdigest()


def digest_config(config: HandlerConfig, labels: bytes) -> str:
    """Digest what decides, beside the artifact, which answer an archive gives: its `handler` section and labels.

    Without the keys that have their default: a key that is added later leaves the digest of former archives as it is.
    """
    return hashlib.sha256(config.model_dump_json(exclude_defaults=True).encode() + labels).hexdigest()
