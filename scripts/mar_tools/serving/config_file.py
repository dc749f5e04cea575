"""A `config.properties` with other values: comments, order and all other lines stay as they are."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mar_tools.archives.policy import KEYS, split_patterns
from vision_serving.errors import ConfigError
from vision_serving.worker.server_settings import Models, read_model, read_models, read_properties

# Whose values are paths that TorchServe takes from its working folder.
PATHS = ("keystore", "private_key_file", "certificate_file", "metrics_config", "plugins_path")


def with_values(text: str, values: Mapping[str, str]) -> str:
    """Return each key in its old place, or at the end; a value may have several lines."""
    left = dict(values)
    lines: list[str] = []
    for line in _logical_lines(text):
        key = line.partition("=")[0].strip()
        if line.lstrip().startswith(("#", "!")) or key not in values:
            lines.append(line)
        elif key in left:  # of a key that stands there twice the last one would count
            lines.append(f"{key}={_continued(left.pop(key))}")
    lines += [f"{key}={_continued(value)}" for key, value in left.items()]
    return "\n".join(lines) + "\n"


def with_absolute_paths(text: str, folder: Path) -> str:
    """Return it for a copy elsewhere: the files that it names by relative paths stay those of `folder`."""
    values = read_properties(text)
    changed = {key: str(folder.absolute() / values[key]) for key in PATHS if values.get(key)}
    if values.get(KEYS):
        changed[KEYS] = ",".join(str(folder.absolute() / pattern) for pattern in split_patterns(values[KEYS]))
    return with_values(text, changed)


def with_model(text: str, name: str, version: str, settings: Mapping[str, Any]) -> str:
    """Return these settings over those that `models` has of a version. Raises ConfigError where it is not JSON."""
    models = read_models(text)
    versions = models.setdefault(name, {})
    versions[version] = {**versions.get(version, {}), **settings}
    return with_values(text, {"models": format_models(models)})


def without_model(text: str, name: str, version: str) -> str:
    """Return it as it is, but for what `models` says of a version."""
    models = read_models(text)
    if version not in models.get(name, {}):
        return text
    del models[name][version]
    return with_values(text, {"models": format_models({key: value for key, value in models.items() if value})})


def rewrite(config: Path, change: Callable[[str], str]) -> None:
    """Rewrite the file as it is now, whole or not at all; its line ends, mode and place stay."""
    config = config.resolve()
    with config.open(encoding="utf-8", newline="") as file:
        text = file.read()
    line_end = "\r\n" if "\r\n" in text else "\n"
    written = config.with_name(f".{config.name}.new")
    written.write_text(change(text.replace("\r\n", "\n")), encoding="utf-8", newline=line_end)
    shutil.copymode(config, written)
    os.replace(written, config)


def model_section(text: str, name: str, version: str) -> dict[str, Any]:
    """Return what `models` says of a version; empty where it says nothing."""
    section = read_model(text, name).get(version, {})
    if not isinstance(section, dict):
        raise ConfigError(f"config.properties: expected settings of {name} {version} in `models`, got {section!r}")
    return section


def format_models(models: Models) -> str:
    """Format JSON with a version's settings on one line."""
    names = []
    for name, versions in models.items():
        entries = [f"    {json.dumps(version)}: {json.dumps(settings)}" for version, settings in versions.items()]
        names.append(f"  {json.dumps(name)}: {{\n" + ",\n".join(entries) + "\n  }")
    return "{\n" + ",\n".join(names) + "\n}"


def _continued(value: str) -> str:
    return value.replace("\n", "\\\n")


def _logical_lines(text: str) -> Iterator[str]:
    """Yield lines together with those that continue them; a comment is never continued."""
    whole: list[str] = []
    for line in text.removesuffix("\n").split("\n"):
        whole.append(line)
        if line.endswith("\\") and not whole[0].lstrip().startswith(("#", "!")):
            continue
        yield "\n".join(whole)
        whole = []
    if whole:
        yield "\n".join(whole)
