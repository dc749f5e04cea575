"""What `config.properties` says to a worker: its threads and memory, the longest answer, the models beside it."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from vision_serving.cores import ThreadPlan, plan_threads, usable_cores
from vision_serving.errors import ConfigError

Models = dict[str, dict[str, dict[str, Any]]]  # settings by name and version
DEFAULT_BODY_BYTES = 6_553_500  # TorchServe's own max_request_size and max_response_size
DEFAULT_HEADROOM_MB = 4096
STATE_KEY = "vision_state"  # another folder for logs, tokens, sockets and samples; TorchServe ignores it
STATE_VARIABLE = "VISION_SERVING_STATE"  # of the environment: the same, and goes before it
SETTINGS_VARIABLE = "VISION_SERVING_CONFIG"  # of the environment: the config.properties, where no TorchServe is parent
MOST_COUNT = (1 << 31) - 1  # of Java's int
PAIR = re.compile(r"([^\s:=\\]+)[ \t\f]*=(.*)", re.DOTALL)
CONTINUED = re.compile(r"(?<!\\)(?:\\\\)*\\$")  # by an odd number of backslashes


def configured_threads(model_name: str, version: str) -> ThreadPlan:
    """Return the threads that the starting TorchServe's `config.properties` gives; elsewhere those of one worker.

    TorchServe tells a worker neither their count nor the file, but the file is on the command line of its parent.
    """
    path = server_config_path()
    return read_threads("" if path is None else path.read_text(encoding="utf-8"), model_name, version)


def configured_answer_bytes() -> int:
    """Return the longest answer that the TorchServe of this process takes: a longer one would end its worker."""
    path = server_config_path()
    properties = {} if path is None else read_properties(path.read_text(encoding="utf-8"))
    return read_count(properties, "max_response_size", DEFAULT_BODY_BYTES)


def read_threads(properties_text: str, model_name: str, version: str) -> ThreadPlan:
    """Read `threads` in the `models` JSON, which is ours: of each worker on this machine, else a fair share.

    Raises ConfigError for `threads` that is not a number above 0.
    """
    threads = read_model(properties_text, model_name).get(version, {}).get("threads")
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        place = f"config.properties: `models`, {model_name} {version}"
        raise ConfigError(f"{place}: expected 1 or more `threads`, got {threads!r}; leave it out for a fair share")
    return plan_threads(usable_cores(), read_workers(properties_text, model_name, version), threads)


def configured_headroom_mb(model_name: str, version: str) -> int:
    """Return the headroom that the starting TorchServe's `config.properties` gives; elsewhere DEFAULT_HEADROOM_MB."""
    path = server_config_path()
    return read_headroom_mb("" if path is None else path.read_text(encoding="utf-8"), model_name, version)


def read_headroom_mb(properties_text: str, model_name: str, version: str) -> int:
    """Read `memory_headroom_mb` in the `models` JSON, which is ours: what a worker may take beyond its model's need.

    0: no limit. Raises ConfigError for what is no number from 0.
    """
    found = read_model(properties_text, model_name).get(version, {}).get("memory_headroom_mb", DEFAULT_HEADROOM_MB)
    if type(found) is not int or found < 0:
        place = f"config.properties: `models`, {model_name} {version}"
        raise ConfigError(f"{place}: expected `memory_headroom_mb` from 0, which is no limit, got {found!r}")
    return found


def server_config_path() -> Path | None:
    """Return the `config.properties` of the server that this process works for: of another than TorchServe, by
    SETTINGS_VARIABLE; of the TorchServe frontend that is its parent, by its command line."""
    if SETTINGS_VARIABLE in os.environ:
        return Path(os.environ[SETTINGS_VARIABLE])
    parent = psutil.Process().parent()
    command: list[str] = [] if parent is None else parent.cmdline()
    if parent is None or "org.pytorch.serve.ModelServer" not in command or "-f" not in command:
        return None
    return Path(str(parent.cwd()), command[command.index("-f") + 1])


def state_folder(config: Path) -> Path:
    """Return where the server of a `config.properties` writes."""
    return choose_state_folder(config.resolve().parent, read_properties(read_text(config)))


def choose_state_folder(folder: Path, values: Mapping[str, str]) -> Path:
    """Return the folder that the environment names, else the one of these settings, else `folder`, where they lie."""
    named = os.environ.get(STATE_VARIABLE)
    return Path(named).absolute() if named else folder / values.get(STATE_KEY, "")


def read_workers(properties_text: str, model_name: str, version: str) -> int:
    """Read `minWorkers` in the `models` JSON, 1 where it names the version alone; else `default_workers_per_model`."""
    found = read_model(properties_text, model_name).get(version)
    if found is None:
        return read_count(read_properties(properties_text), "default_workers_per_model", 1, least=0)
    return int(found.get("minWorkers", 1))


def read_batch_size(properties_text: str, model_name: str) -> int | None:
    """Read `batchSize` of a model (its largest version) in the `models` JSON, None where it names none."""
    found = read_model(properties_text, model_name).values()
    return max((int(version["batchSize"]) for version in found if "batchSize" in version), default=None)


def read_model(properties_text: str, model_name: str) -> dict[str, dict[str, Any]]:
    """Return what the `models` JSON says of a model, by version. Raises ConfigError where it is no JSON."""
    return read_models(properties_text).get(model_name, {})


def read_models(properties_text: str) -> Models:
    """Return all of the `models` JSON. Raises ConfigError where it is no JSON."""
    text = read_properties(properties_text).get("models", "{}")
    try:
        models: Models = json.loads(text, object_pairs_hook=_refuse_twins)
    except json.JSONDecodeError as error:
        rest = text[error.pos :].strip()[:40]  # the lines were joined, so the number of one says nothing
        near = f"{error.msg} at {repr(rest) if rest else 'its end'}"
        raise ConfigError(f"config.properties: `models` is not valid JSON: {near}") from error
    return models


def _refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for number, (key, _) in enumerate(pairs):
        if key in dict(pairs[:number]):
            raise ConfigError(f"config.properties: `models`: the key {key!r} stands twice; keep one")
    return dict(pairs)


def read_count(properties: Mapping[str, str], key: str, default: int, least: int = 1, most: int = MOST_COUNT) -> int:
    """Read a whole number as Java does, `default` where there is none. Raises ConfigError for all else."""
    text = properties.get(key, str(default))
    if not re.fullmatch("[0-9]{1,10}", text) or not least <= int(text) <= most:
        raise ConfigError(f"config.properties: {key}: expected a whole number from {least} to {most}, got {text!r}")
    return int(text)


def read_properties(text: str) -> dict[str, str]:
    """Return a Java properties file of `key=value` lines, which a backslash at their end continues.

    Raises ConfigError for what Java takes as a pair too, such as `key: value`, and no reader here expects.
    """
    values: dict[str, str] = {}
    joined = ""
    for number, line in enumerate([*text.split("\n"), ""], 1):
        if not joined and line.lstrip().startswith(("#", "!")):
            continue
        joined += line.lstrip()
        if CONTINUED.search(line):
            joined = joined[:-1]
            continue
        pair = PAIR.fullmatch(joined)
        if pair is None and joined.strip():
            raise ConfigError(f"config.properties: line {number}: expected key=value, got {joined[:80]!r}")
        if pair is not None:
            values[pair[1]] = pair[2].strip()
        joined = ""
    return values


def read_text(config: Path) -> str:
    """Return what a `config.properties` says. Raises ConfigError where it is missing, or no UTF-8."""
    try:
        return config.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise ConfigError(f"{config}: no such file; give --config with the server's config.properties") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{config}: line {line}: expected UTF-8, got the byte {error.object[error.start]:#x}"
        ) from error
