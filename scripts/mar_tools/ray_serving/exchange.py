"""What is asked of a model, what it answers, and the context that its handler has of a batch."""

from collections.abc import Mapping, Sequence
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


class BatchContext:
    """What a handler reads of a batch and writes of its answers, as TorchServe's own context has it."""

    def __init__(
        self, model: str, manifest: Mapping[str, Any], properties: dict[str, Any], requests: Sequence[Request] = ()
    ) -> None:
        self.model_name, self.manifest, self.system_properties = model, manifest, properties
        self._requests = requests
        self._statuses = [200] * len(requests)
        self._types = ["application/json"] * len(requests)
        self._headers: list[dict[str, str]] = [{} for _ in requests]

    def get_all_request_header(self, index: int) -> dict[str, Any]:
        return self._requests[index].headers

    def set_response_content_type(self, index: int, value: str) -> None:
        self._types[index] = value

    def set_response_status(self, code: int, phrase: str = "", index: int = 0) -> None:
        self._statuses[index] = code

    def set_response_header(self, index: int, name: str, value: str) -> None:
        self._headers[index][name] = value

    def collect_answers(self, bodies: Sequence[bytes]) -> list[Answer]:
        """Return one answer a request, in order."""
        return [Answer(*parts) for parts in zip(self._statuses, self._types, self._headers, bodies, strict=True)]
