"""Strict, frozen values from YAML, JSON and requests, and what is wrong with them in one line."""

import re
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import orjson
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from vision_serving.errors import ConfigError

# A part of a location that a user wrote; pydantic adds the names of types and validators.
KEY = re.compile(r"(?!int$|float$|str$)[a-z_][a-z0-9_]*|\d+")

MOST_BYTES = 1 << 20  # of a document that people write, or that a start reads
MOST_EVENTS = 200_000  # of YAML; 21,000 labels by their numbers and back are 84,000
DEEPEST = 50  # as for TorchServe's own reader
LONGEST_NUMBER = 100
TEXT_TAG, MERGE_TAG = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
BRIEF = reprlib.Repr()
BRIEF.maxlevel, BRIEF.maxlist, BRIEF.maxtuple, BRIEF.maxdict = 4, 10, 10, 10
BRIEF.maxstring = BRIEF.maxlong = BRIEF.maxother = 100


class StrictModel(BaseModel):
    """Base of every configuration: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


ConfigModel = TypeVar("ConfigModel", bound=BaseModel)


def parse_config(model: type[ConfigModel], values: object, where: str) -> ConfigModel:
    """Validate `values`. Raises ConfigError in one line that names `where`, the key, and what is allowed."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{where}: {describe_problems(error, model)}") from error


def describe_problems(error: ValidationError, model: type[BaseModel]) -> str:
    """Describe pydantic's findings in one line."""
    problems = error.errors()
    # What is neither `auto` nor a good section fails as both; the section's problems are the telling ones.
    telling = [p for p in problems if not any(str(part).startswith("literal[") for part in p["loc"])]
    return "; ".join(_describe_problem(problem, model) for problem in telling or problems)


def shorten(value: object, length: int) -> str:
    """Return the beginning of a value as text, which may be too deep or too long to be printed whole."""
    return (value if isinstance(value, str) else BRIEF.repr(value))[:length]


def _describe_problem(problem: Mapping[str, Any], model: type[BaseModel]) -> str:
    location = [str(part) for part in problem["loc"]]
    key = _join_keys(location)
    if problem["type"] == "extra_forbidden":
        return _describe_unknown_key(location, model)
    if problem["type"] == "missing":
        return f"missing key '{key}'"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in ("model_type", "dict_type"):
        message = "expected a section of keys"
    found = f", got {shorten(problem['input'], 80)!r}" if location and problem["type"] != "value_error" else ""
    return f"'{key}': {message}{found}" if key else message


def _join_keys(location: Sequence[str]) -> str:
    return ".".join(part for part in location if KEY.fullmatch(part))


def _describe_unknown_key(location: Sequence[str], model: type[BaseModel]) -> str:
    section, name = _join_keys(location[:-1]), shorten(location[-1], 80)
    fields = sorted(_names_of(_model_at(model, location[:-1])))
    near = find_near(name, fields)
    places = [path for path in _list_keys(model) if path.rpartition(".")[2] == name]  # of another section
    meant = places or ([f"{section}.{near}".removeprefix(".")] if near else [])
    hint = f"did you mean {' or '.join(map(repr, meant))}? " if meant else ""
    return f"unknown key {f'{section}.{name}'.removeprefix('.')!r}; {hint}expected one of {fields}"


def _model_at(model: type[BaseModel], location: Sequence[str]) -> type[BaseModel]:
    """Return the (nested) model that a location leads to."""
    for part in location:
        model = next(_sections_of(model, part), model)
    return model


def _sections_of(model: type[BaseModel], name: str) -> Iterator[type[BaseModel]]:
    """Yield the models that a field may hold."""
    annotation = model.model_fields[name].annotation if name in model.model_fields else None
    for inner in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield inner


def _names_of(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _list_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the keys of a model and of its sections, as `limits.max_pixels`."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        yield key
        for section in _sections_of(model, name):
            yield from _list_keys(section, f"{key}.")


def find_near(key: str, known: Iterable[str]) -> str | None:
    """Return the known key that a mistyped one means, without regard to case and signs; None where none is near."""
    plain = {_letters(name): name for name in known}
    near = get_close_matches(_letters(key), plain, 1)
    return plain[near[0]] if near else None


def _letters(key: str) -> str:
    return re.sub("[^a-z0-9]", "", key.lower())


def read_json(path: Path, hint: str = "", most_bytes: int | None = None) -> Any:
    """Read a JSON file. Raises ConfigError that names the file when it is missing, too large, or is not JSON.

    hint: what to do then, for the end of the message. most_bytes: of a file from elsewhere.
    """
    content = read_bytes(path, "JSON", hint, most_bytes)
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"{path}: not a readable JSON file ({error}){_advise(hint)}") from error


def read_yaml(path: Path, hint: str = "") -> Any:
    """Read a YAML file. Raises ConfigError that names the file when it is missing or is not plain YAML (load_yaml).

    hint: what to do where it is missing, for the end of the message.
    """
    content = read_bytes(path, "YAML", hint, MOST_BYTES)
    try:
        return load_yaml(content)
    except ValueError as error:
        raise ConfigError(f"{path}: not a readable YAML file ({' '.join(str(error).split())[:300]})") from error


def read_text(path: Path, most_bytes: int | None = None) -> str:
    """Read a text in UTF-8, with or without a byte order mark. Raises ConfigError as `read_bytes`, and for others."""
    try:
        return read_bytes(path, "text", most_bytes=most_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; save it as UTF-8") from error


def read_bytes(path: Path, kind: str, hint: str = "", most_bytes: int | None = None) -> bytes:
    """Read a file. Raises ConfigError that names it when it is missing, cannot be read, or has over `most_bytes`.

    kind: what it should be, for the message.
    """
    try:
        with path.open("rb") as file:
            content = file.read(-1 if most_bytes is None else most_bytes + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file{_advise(hint)}") from error
    except OSError as error:
        raise ConfigError(f"{path}: not a readable {kind} file ({error.strerror}){_advise(hint)}") from error
    if most_bytes is not None and len(content) > most_bytes:
        raise ConfigError(f"{path}: not a readable {kind} file (it has over {most_bytes:,} bytes){_advise(hint)}")
    return content


def _advise(hint: str) -> str:
    return f"; {hint}" if hint else ""


class PlainLoader(yaml.CSafeLoader):
    """Builds what each reader of YAML builds alike, in time and memory that its size bounds."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Refuse merge keys and keys that are given twice: a reader would keep one value, without a word."""
        counts = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if any(key.tag == MERGE_TAG for key, _ in node.value):
            raise ValueError("it has a merge key (<<); write the keys out")
        for name, count in counts.most_common(1):
            if count > 1:
                raise ValueError(f"it has the key {name[:80]!r} twice; leave one of them")

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        """Bound what is no text: an integer of a million digits takes minutes."""
        if node.tag != TEXT_TAG and len(node.value) > LONGEST_NUMBER:
            raise ValueError(f"it has a number or date of {len(node.value)} characters; quote it if it is a text")
        return super().construct_scalar(node)


def load_yaml(content: bytes) -> Any:
    """Load one small document without anchors, aliases, merge keys, tags, double keys and deep nesting.

    A few lines with aliases stand for more than memory holds. Raises ValueError.
    """
    if len(content) > MOST_BYTES:
        raise ValueError(f"it has over {MOST_BYTES:,} bytes")
    try:
        depth = 0
        for count, event in enumerate(yaml.parse(content, PlainLoader)):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise ValueError("it has an anchor or alias (& or *); write out what it stands for")
            if tag := getattr(event, "tag", None):
                raise ValueError(f"it has the tag {tag[:80]!r}; leave it out")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST or count > MOST_EVENTS:
                raise ValueError(f"it has over {DEEPEST} levels, or over {MOST_EVENTS:,} values")
        return yaml.load(content, PlainLoader)
    # PyYAML raises what it comes upon, for example of the date 2024-13-45.
    except (yaml.YAMLError, ArithmeticError, TypeError, AttributeError, LookupError) as error:
        raise ValueError(str(error)) from error
