"""The outcome of one request -> HTTP status, headers and body."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from vision_serving.errors import RequestError
from vision_serving.media_types import JSON_TYPE
from vision_serving.payload import Form
from vision_serving.predictions import Explanation, Prediction

# Fixed ASCII: a phrase with a line break from a client's text would end the worker.
PHRASES = {
    200: "OK",
    400: "Bad Request",
    406: "Not Acceptable",
    413: "Payload Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Entity",
    500: "Internal Server Error",
    501: "Not Implemented",
    504: "Gateway Timeout",
    507: "Insufficient Storage",
}
MAX_MESSAGE_CHARS = 400
CONTROL_CHARACTERS = dict.fromkeys(range(32), " ")  # six bytes each in JSON
RESULT_KEYS = {Form.MULTIPART: "results", Form.KSERVE_V1: "predictions"}

ItemResult: TypeAlias = Prediction | Explanation | RequestError


@dataclass(frozen=True)
class Outcome:
    """One request's results, one per image, in order."""

    items: tuple[ItemResult, ...]
    form: Form = Form.RAW


@dataclass(frozen=True)
class Response:
    """What goes back over HTTP."""

    status: int
    body: bytes
    content_type: str = JSON_TYPE

    @property
    def phrase(self) -> str:
        return PHRASES[self.status]


def encode_response(outcome: Outcome) -> Response:
    """A raw body gets its answer bare, the other forms a list; 200 when any image succeeded, else the first error."""
    errors = [item for item in outcome.items if isinstance(item, RequestError)]
    if len(errors) == len(outcome.items):
        return Response(errors[0].status, orjson.dumps(describe_error(errors[0], failed_images=len(errors))))
    if outcome.form is Form.RAW:
        return Response(200, orjson.dumps(outcome.items[0]))
    entries = [{"error": describe_error(item)} if isinstance(item, RequestError) else item for item in outcome.items]
    return Response(200, orjson.dumps({RESULT_KEYS[outcome.form]: entries}))


def describe_error(error: RequestError, failed_images: int = 1) -> dict[str, Any]:
    """The error body of the HTTP contract; text that UTF-8 cannot carry is replaced."""
    message = str(error)[:MAX_MESSAGE_CHARS].encode("utf-8", errors="replace").decode("utf-8")
    message = message.translate(CONTROL_CHARACTERS)
    prefix = f"all {failed_images} images failed; the first: " if failed_images > 1 else ""
    return {"code": error.status, "type": type(error).__name__, "message": prefix + message}
