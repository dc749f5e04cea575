"""What an archive says of itself: to a describe job, and to scripts/inspect_archive.py. It needs no PyTorch."""

import hashlib
import itertools
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from vision_serving.config import HandlerConfig
from vision_serving.errors import ConfigError
from vision_serving.options import ExplanationOptions
from vision_serving.source_constants import read_constant
from vision_serving.validation import MOST_BYTES, read_json

Card = dict[str, Any]

MANIFEST = "MAR-INF/MANIFEST.json"
FORM_TYPES = ("multipart/", "application/x-www-form-urlencoded")
# Of the packages that answers can depend on, a card lists those that are installed.
PACKAGES = (
    "torch", "torchvision", "torchserve", "timm", "transformers", "captum", "numpy", "pillow", "orjson", "pydantic",
)  # fmt: skip
BACKENDS_FOLDER = Path(__file__).resolve().parents[1] / "backends"
EVIDENCE = (
    "passed", "reference", "weights", "images", "measured", "bounds", "accuracy", "baseline", "reading", "assumed",
    "alternatives", "artifact_sha256", "machine", "versions",
)  # fmt: skip
TIMINGS = ("device", "images_per_s", "speedup", "load_s", "size_mb")
SETTINGS = ("device_type", "cpu_features", "scaled_decoding", "max_images_per_inference")
BLOCK = 1 << 20


def is_describe_job(rows: Sequence[Mapping[str, Any]], headers: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether TorchServe itself asks (`GET /models/{model}?customized=true`), and not a client by its header.

    A describe job comes alone and has no parameters. A client's request always has a `body`, an empty one too; only a
    form can have none.
    """
    if len(rows) != 1 or rows[0] or headers[0].get("describe") != "True":
        return False
    content_type = next((str(value) for name, value in headers[0].items() if name.lower() == "content-type"), "")
    return not content_type.strip().lower().startswith(FORM_TYPES)


def build_card(
    folder: Path, config: HandlerConfig, labels: Sequence[str], methods: Sequence[str] = (), device: str | None = None
) -> Card:
    """Build the card of an extracted archive or an export folder.

    methods: of explanations; device: where a worker runs it. Raises ConfigError for a file that cannot be read.
    """
    model = read_object(folder / MANIFEST).get("model", {})
    card = {
        "name": model.get("modelName"),
        "version": model.get("modelVersion"),
        "task": config.task,
        "backend": config.backend,
        "precision": config.precision,
        "device": device,
        **config.model_dump(mode="json", include=set(SETTINGS)),
        "preprocessing": config.preprocessing.model_dump(mode="json", exclude_none=True),
        "options": describe_options(config.options_model, config.options),
        "explanations": describe_options(ExplanationOptions, {}, method=list(methods)) if methods else None,
        "limits": config.limits.model_dump(mode="json"),
        "verification": read_evidence(folder),
        "versions": installed_versions(),
        "artifact": config.artifact,
        "files": digest_files(folder),
        "num_classes": len(labels),
        "labels": list(labels),
    }
    return {key: value for key, value in card.items() if value is not None}


def describe_options(model: type[BaseModel], defaults: Mapping[str, Any], **allowed: Sequence[str]) -> Card:
    """Describe each option as JSON Schema has it. allowed: the values of one that has fewer."""
    properties: dict[str, Card] = model.model_json_schema()["properties"]
    for name, values in defaults.items():
        properties[name]["default"] = values
    for name, names in allowed.items():
        properties[name]["enum"] = names
    return {
        name: {key: value for key, value in schema.items() if key != "title" and value is not None}
        for name, schema in properties.items()
    }


def read_evidence(folder: Path) -> Card | None:
    """Return what `verification.json` says of the artifact, with the timings of the candidate that was chosen."""
    report = read_object(folder / "verification.json")
    evidence = {name: report[name] for name in EVIDENCE if report.get(name) is not None}
    chosen = next((row for row in report.get("candidates", ()) if row["verdict"] == "chosen"), None)
    if chosen is not None:
        evidence["timing"] = {name: chosen[name] for name in TIMINGS if chosen.get(name) is not None}
    return evidence or None


def read_object(path: Path) -> Card:
    """Read the object in a JSON file, empty where there is none. Raises ConfigError when it cannot be read."""
    document = read_json(path, most_bytes=MOST_BYTES) if path.is_file() else {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected an object")
    return document


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and the packages here. The verification may have had others."""
    found = {"python": platform.python_version()}
    stated = (read_constant(file, "DISTRIBUTIONS", ()) for file in sorted(BACKENDS_FOLDER.glob("*.py")))
    for package in (*PACKAGES, *itertools.chain.from_iterable(stated)):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def digest_files(folder: Path) -> dict[str, Card]:
    """Return bytes and SHA-256 of each file by its path, without what Python compiled from them."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": digest_file(path)}
        for path in paths
    }


def digest_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
