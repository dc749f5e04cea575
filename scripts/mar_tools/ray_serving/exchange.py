"""What is asked of a model, and what it answers."""

from typing import Any, NamedTuple


class Request(NamedTuple):
    """A request in the shape that TorchServe gives to handlers: parameters by name, and its headers."""

    row: dict[str, bytes]
    headers: dict[str, Any]


class Answer(NamedTuple):
    status: int
    content_type: str
    headers: dict[str, str]
    body: bytes
