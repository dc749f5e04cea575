"""Options as keywords -> the header that carries them."""

from collections.abc import Mapping
from typing import Any

OPTIONS_HEADER = "X-Inference-Options"


def write_options(options: Mapping[str, Any]) -> bytes:
    """Write {"top_k": 3, "class_filter": ["cat", 7]} as b"top_k=3; class_filter=cat,7".

    {"cat": 0.3} is written cat:0.3.

    None leaves the model's default. Raises ValueError for a text that the header cannot carry.
    """
    return "; ".join(f"{name}={_write(name, value)}" for name, value in options.items() if value is not None).encode()


def _write(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return _write(name, [f"{key}:{each}" for key, each in value.items()])
    if isinstance(value, (list, tuple, set, frozenset)):
        return ",".join(_write_part(name, part, ",") for part in value)
    return _write_part(name, value, "")


def _write_part(name: str, value: Any, separator: str) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    forbidden = [character for character in text if character in f";{separator}" or not character.isprintable()]
    if forbidden:
        found = f"{name}: {text!r} has a {forbidden[0]!r}"
        raise ValueError(f"{found}, which the header cannot carry; give a class by its id")
    return text
