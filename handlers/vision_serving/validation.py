"""Strict, frozen values from YAML, JSON and requests, and what is wrong with them in one line."""

import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import orjson
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from vision_serving.errors import ConfigError

# A part of a location that a user wrote; pydantic adds the names of types and validators.
KEY = re.compile(r"(?!int$|float$|str$)[a-z_][a-z0-9_]*|\d+")


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
    """Return the beginning of a value as text.

    It may be nested more deeply, or be longer, than could be printed whole.
    """
    return (value if isinstance(value, str) else BRIEF.repr(value))[:length]


def _describe_problem(problem: Mapping[str, Any], model: type[BaseModel]) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(part for part in location if KEY.fullmatch(part))
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'; expected one of {sorted(_fields_at(model, location[:-1]))}"
    if problem["type"] == "missing":
        return f"missing key '{key}'"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in ("model_type", "dict_type"):
        message = "expected a section of keys"
    found = f", got {shorten(problem['input'], 80)!r}" if location and problem["type"] != "value_error" else ""
    return f"'{key}': {message}{found}" if key else message


def _fields_at(model: type[BaseModel], location: list[str]) -> list[str]:
    """Return the field names of the (nested) model that a location leads to."""
    for part in location:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        inner = [a for a in (annotation, *getattr(annotation, "__args__", ())) if isinstance(a, type)]
        nested = [a for a in inner if issubclass(a, BaseModel)]
        if nested:
            model = nested[0]
    return [field.alias or name for name, field in model.model_fields.items()]


def read_json(path: Path, hint: str = "") -> Any:
    """Read a JSON file. Raises ConfigError that names the file when it is missing or is not JSON.

    hint: what to do then, for the end of the message.
    """
    advice = f"; {hint}" if hint else ""
    try:
        return orjson.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file{advice}") from error
    except (OSError, orjson.JSONDecodeError) as error:
        raise ConfigError(f"{path}: not a readable JSON file ({error}){advice}") from error


def read_yaml(path: Path) -> Any:
    """Read a YAML file. Raises ConfigError that names the file when it is missing or is not YAML."""
    try:
        return load_yaml(path.read_bytes())
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except OSError as error:
        raise ConfigError(f"{path}: not a readable YAML file ({error.strerror})") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not a readable YAML file ({' '.join(str(error).split())[:300]})") from error


def load_yaml(content: bytes) -> Any:
    """Raises ValueError, where PyYAML raises what it comes upon: of a date such as 2024-13-45, of `!!bool maybe`."""
    try:
        return yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise ValueError(str(error)) from error
