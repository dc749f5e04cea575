"""What an archive says of the answers to its verification images."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mar_tools.archives.archive import Archive, open_archive
from mar_tools.distributions import Distributions
from mar_tools.serving.archive_choice import file_name, list_entries
from vision_serving.config import read_handler_config
from vision_serving.errors import ConfigError
from vision_serving.labels import read_labels
from vision_serving.validation import read_json
from vision_serving.worker.server_settings import read_model, read_properties, read_text

KEY = "distributions"  # of verification.json
CONFIG, VERIFICATION = "model-config.yaml", "verification.json"


@dataclass(frozen=True)
class Reference:
    """all_classes: whether each class of an answer counts, or the best one alone. source: of the images, in words."""

    distributions: Distributions
    all_classes: bool
    source: str
    labels: Sequence[str]

    def name_class(self, class_id: str) -> str:
        """Return the label of a class id, the id itself where there is none."""
        known = class_id.isdecimal() and int(class_id) < len(self.labels)
        return self.labels[int(class_id)] if known else class_id


def read_reference(folder: Path, name: str) -> Reference:
    """Read that of an unpacked archive. name: of it, for messages. Raises ConfigError where it has none."""
    config = read_handler_config(folder / CONFIG)
    report = read_json(folder / VERIFICATION) if (folder / VERIFICATION).is_file() else {}
    document: Any = report.get(KEY) if isinstance(report, dict) else None
    try:
        distributions = Distributions.from_json(document)
        all_classes = bool(document["all_classes"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{name}: it does not say how its verification's answers are distributed; build it again with "
            "build_model.py, and serve the new archive"
        ) from error
    images = report.get("images") or {}
    source = f"{images.get('count', distributions.images)} images, {images.get('source', 'unknown')}"
    return Reference(distributions, all_classes, source, read_labels(folder / config.labels))


def read_archive_reference(path: Path) -> Reference:
    """Read that of a `.mar`. Raises ConfigError."""
    archive = open_archive(path)
    with tempfile.TemporaryDirectory(prefix="vision-serving-") as temporary:
        folder = Path(temporary)
        for name in (CONFIG, VERIFICATION):
            _unpack(archive, name, folder)
        _unpack(archive, read_handler_config(folder / CONFIG).labels, folder)
        return read_reference(folder, str(path))


def _unpack(archive: Archive, name: str, folder: Path) -> None:
    if name in archive.entries:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(archive.read_document(name))


def find_archive(config: Path, model: str, version: str) -> Path:
    """Return the archive of a version in the model store of a `config.properties`. Raises ConfigError."""
    properties = read_text(config)
    store = config.resolve().parent / read_properties(properties).get("model_store", "model_store")
    likely = read_model(properties, model).get(version, {}).get("marName", f"{model}.mar")
    entries = list_entries(properties, store)
    for entry in sorted(entries, key=lambda entry: file_name(entry) != likely):
        try:
            own, found = open_archive(store / file_name(entry)).identity
        except ConfigError:
            continue
        if (entry.rpartition("=")[0] or own, found) == (model, version):
            return store / file_name(entry)
    raise ConfigError(f"{store}: no archive of {model} {version} in it; name one with --archive")
