"""What must hold of an archive of ours, beyond being well-formed: all that build_model.py put in, and nothing else.

Each check is one function, and CHECKS their order. Nothing here needs PyTorch, and nothing that is checked is run.
"""

import ast
from collections.abc import Callable
from pathlib import Path

import orjson

from mar_tools.archives.archive import DIGESTS, MANIFEST, Archive, open_archive
from mar_tools.archives.digests import combine_digests, digest_config, select_artifact
from mar_tools.archives.pickles import find_pickle
from mar_tools.archives.zip_form import Stored, directory, local_header
from vision_serving.config import HandlerConfig
from vision_serving.errors import ConfigError
from vision_serving.validation import load_yaml, parse_config, shorten

CONFIG = "model-config.yaml"
CONFIG_KEYS = {"handler", "responseTimeout", "startupTimeout"}
VERIFICATION = "verification.json"
TEXTS = (".py", ".json", ".yaml", ".xml", ".cpp", ".h", ".txt")  # which no loader of ours takes for a pickle
BUILD_AGAIN = "build it, or again where an earlier version did: python scripts/build_model.py RECIPE"
INDUCTOR = "inductor"  # in an artifact of torch_compile: its cache, see docs/operate/archives.md


def verify_archive(path: Path) -> Archive:
    """Raises ConfigError, with its reason, for what is not an archive of ours, whole and unchanged."""
    archive = open_archive(path)
    if not archive.is_ours:
        raise ConfigError(f"{path}: no {DIGESTS}, so it is not known to be whole; {BUILD_AGAIN}")
    check_ours(archive)
    return archive


def check_ours(archive: Archive) -> None:
    """Raises ConfigError."""
    for check in CHECKS:
        try:
            fault = check(archive)
        except ConfigError as error:
            fault = str(error).removeprefix(f"{archive.path}: ")
        if fault is not None:
            raise ConfigError(f"{archive.path}: {fault}")


def find_other_form(archive: Archive) -> str | None:
    """Return what is not byte for byte as our writer writes it: an order, a time, a mode, a compression."""
    names = list(archive.entries)
    if names != sorted(names):
        return "its entries are not in the order of their names; it was not written by build_model.py"
    entries = [Stored(entry.name, entry.size, entry.crc) for entry in archive.entries.values()]
    for entry in entries:
        header = local_header(entry)
        start = archive.entries[entry.name].start
        if bytes(archive.data[max(0, start - len(header)) : start]) != header:
            return f"entry {entry.name!r} was not written by build_model.py (its time, mode or compression)"
    tail = directory(entries)
    if bytes(archive.data[-len(tail) :]) != tail:
        return "its directory was not written by build_model.py"
    return None


def find_other_digest(archive: Archive) -> str | None:
    try:
        expected = orjson.loads(archive.read_document(DIGESTS))
        listed = {str(name): str(digest) for name, digest in expected["sha256"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{DIGESTS} is not a list of digests"
    found = {name: digest for name, digest in archive.digests.items() if name != DIGESTS}
    for name in sorted(listed.keys() | found.keys()):
        if name not in found:
            return f"{name} is missing, which {DIGESTS} lists"
        if name not in listed:
            return f"{name} was added: {DIGESTS} does not list it"
        if listed[name] != found[name]:
            return f"{name} was changed: its SHA-256 is not that of {DIGESTS}"
    return None


def find_bad_manifest(archive: Archive) -> str | None:
    model = archive.manifest["model"]
    for key in ("modelVersion", "handler", "configFile"):
        if not isinstance(model.get(key), str) or not model[key]:
            return f"{MANIFEST} has no {key}"
    if model["configFile"] != CONFIG:
        return f"{MANIFEST}: expected the configuration {CONFIG}, got {model['configFile']!r}"
    return None


def find_bad_code(archive: Archive) -> str | None:
    """Find code that does not parse. It is never run."""
    handler = archive.manifest["model"]["handler"]
    if handler not in archive.entries:
        return f"the handler {handler} is missing, which {MANIFEST} names"
    for name in archive.entries:
        if name.endswith(".py"):
            try:
                module = ast.parse(archive.read_document(name), name)
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                return f"{name} is not Python: {error}"
            if name == handler:
                fault = _find_bad_entry_file(module)
                if fault is not None:
                    return f"the handler {handler} {fault}"
    return None


def _find_bad_entry_file(module: ast.Module) -> str | None:
    classes = [node.name for node in module.body if isinstance(node, ast.ClassDef)]
    if len(classes) != 1:
        return f"defines {len(classes)} classes; TorchServe takes a file with exactly one"
    functions = [node.name for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return "defines `handle`, which TorchServe would call in place of the class" if "handle" in functions else None


def read_config(archive: Archive, name: str) -> object:
    """Read a yaml file of an archive. Raises ConfigError, also for one that a server could choke on (load_yaml)."""
    if name not in archive.entries:
        raise ConfigError(f"{archive.path}: {name} is missing")
    try:
        return load_yaml(archive.read_document(name))
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{archive.path}: {name} is not YAML, or more than is served ({reason})") from error


def read_handler_section(archive: Archive) -> HandlerConfig:
    """Return the `handler` section. Raises ConfigError."""
    document = read_config(archive, CONFIG)
    if not isinstance(document, dict) or "handler" not in document:
        raise ConfigError(f"{CONFIG} has no section 'handler'")
    unknown = sorted(map(str, document.keys() - CONFIG_KEYS))
    if unknown:
        raise ConfigError(f"{CONFIG}: unknown key {unknown[0]!r}; expected one of {sorted(CONFIG_KEYS)}")
    for key in sorted(CONFIG_KEYS - {"handler"} & document.keys()):
        if isinstance(document[key], bool) or not isinstance(document[key], int) or document[key] < 1:
            raise ConfigError(f"{CONFIG}: '{key}': expected whole seconds above 0, got {shorten(document[key], 80)!r}")
    return parse_config(HandlerConfig, document["handler"], f"{CONFIG} (handler)")


def find_bad_labels(archive: Archive) -> str | None:
    section = read_handler_section(archive)
    name = section.labels
    if name not in archive.entries:
        return f"the labels {name} are missing"
    try:
        labels = orjson.loads(archive.read_document(name))
    except orjson.JSONDecodeError as error:
        return f"{name} is not JSON ({error})"
    is_list = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
    return None if is_list and (labels or section.task == "embedding") else f"{name}: expected a list of strings"


def find_bad_artifact(archive: Archive) -> str | None:
    """Find one that is missing, or not the one that was verified."""
    config = read_handler_section(archive)
    names = select_artifact(archive.digests, config.artifact)
    if not names or (config.artifact not in names and not names[0].startswith(f"{config.artifact}/")):
        return f"the artifact {config.artifact} is missing"
    if VERIFICATION not in archive.entries:
        return f"{VERIFICATION} is missing: nothing says that it answers as its reference does"
    try:
        report = orjson.loads(archive.read_document(VERIFICATION))
        passed, artifact, settings = report["passed"], report["artifact_sha256"], report["config_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        return f"{VERIFICATION} is no report of a verification ({error})"
    if passed is not True:
        return f"{VERIFICATION}: the verification failed"
    if artifact != combine_digests({name: archive.digests[name] for name in names}):
        return f"{VERIFICATION} is of another artifact"
    if settings != digest_config(config, archive.read_document(config.labels)):
        return (
            f"{VERIFICATION} is of another configuration, of other labels, or of another version of this project; "
            f"{BUILD_AGAIN}"
        )
    return None


def find_bad_pickle(archive: Archive) -> str | None:
    config = read_handler_section(archive)
    cache = f"{config.artifact}/{INDUCTOR}/" if config.backend == "torch_compile" else None
    for name in archive.digests:
        if name.endswith(TEXTS) or (cache and name.startswith(cache)):
            continue
        fault = find_pickle(name, archive.read(name))
        if fault is not None:
            return f"{fault}; weights travel as safetensors, .pt2, ONNX or OpenVINO IR"
    return None


CHECKS: tuple[Callable[[Archive], str | None], ...] = (
    find_other_form,
    find_other_digest,
    find_bad_manifest,
    find_bad_code,
    find_bad_labels,
    find_bad_artifact,
    find_bad_pickle,
)
