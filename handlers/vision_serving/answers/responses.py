"""The outcome of one request -> HTTP status, headers and body."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from vision_serving.answers.open_inference import encode_tensors, make_tensors
from vision_serving.errors import InferenceError, MalformedRequestError, PayloadTooLargeError, RequestError
from vision_serving.requests.accept import JSON_TYPE
from vision_serving.requests.payload import HEADER_LENGTH, Form
from vision_serving.results.outcome import ImageResult, Outcome

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
    503: "Service Unavailable",
    504: "Gateway Timeout",
    507: "Insufficient Storage",
}
BINARY_TYPE = "application/octet-stream"
MAX_MESSAGE_CHARS = 400
CONTROL_CHARACTERS = dict.fromkeys(range(32), " ")  # six bytes each in JSON
RESULT_KEYS = {Form.MULTIPART: "results", Form.KSERVE_V1: "predictions"}


@dataclass(frozen=True)
class ModelIdentity:
    """The model that answers, as the Open Inference Protocol and a header state it."""

    name: str = ""
    version: str = ""


@dataclass(frozen=True)
class Response:
    """What goes back over HTTP. error: the type that the body of a failure names."""

    status: int
    body: bytes
    content_type: str = JSON_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)
    error: str = ""

    @property
    def phrase(self) -> str:
        return PHRASES.get(self.status, "Error")


def encode_response(outcome: Outcome, model: ModelIdentity = ModelIdentity()) -> Response:
    """Encode an answer: bare for a raw body, else a list. Its status is 200, or the first error's if all failed."""
    errors = [item for item in outcome.items if isinstance(item, RequestError)]
    if len(errors) == len(outcome.items) and outcome.wishes.has_status:
        return _encode_failure(errors[0], outcome.form, failed_images=len(errors))
    return ENCODERS[outcome.form](outcome, model)


def bound(response: Response, outcome: Outcome, max_bytes: int) -> Response:
    """Return the response, or in the place of one that TorchServe would not take an error of its request."""
    if len(response.body) <= max_bytes:
        return response
    error = PayloadTooLargeError(
        f"the answer has {len(response.body):,} bytes; max_response_size in config.properties is {max_bytes:,}; send "
        "fewer images at once, or ask for fewer detections"
    )
    return _encode_failure(error, outcome.form)


def _encode_list(outcome: Outcome, model: ModelIdentity) -> Response:
    return Response(200, orjson.dumps({RESULT_KEYS[outcome.form]: [_show_item(item) for item in outcome.items]}))


def _encode_tensors(outcome: Outcome, model: ModelIdentity) -> Response:
    """Return the outputs that the request names, in JSON or as binary data; all without names."""
    wishes = outcome.wishes
    entries = [orjson.dumps(_show_item(item)).decode() for item in outcome.items]
    tensors = {tensor.name: tensor for tensor in make_tensors(outcome.items, entries)}
    binary: Mapping[str, bool] = wishes.outputs or dict.fromkeys(tensors, wishes.binary)
    if all(isinstance(item, RequestError) for item in outcome.items):  # there are no numbers to be had, only reasons
        binary = {"predictions": wishes.binary}
    unknown = sorted(binary.keys() - tensors.keys())
    if unknown:
        error = MalformedRequestError(f"unknown output {unknown[0][:60]!r}; expected one of {list(tensors)}")
        return _encode_failure(error, outcome.form)
    beside = {"model_name": model.name, "model_version": model.version}
    if wishes.id is not None:
        beside["id"] = _to_utf8(wishes.id)
    head, *sections = encode_tensors([tensors[name] for name in binary], binary, beside)
    if not sections:
        return Response(200, head)
    return Response(200, head + b"".join(sections), BINARY_TYPE, {HEADER_LENGTH: str(len(head))})


ENCODERS: dict[Form, Callable[[Outcome, ModelIdentity], Response]] = {
    Form.RAW: lambda outcome, model: Response(200, orjson.dumps(outcome.items[0])),
    Form.MULTIPART: _encode_list,
    Form.KSERVE_V1: _encode_list,
    Form.OPEN_INFERENCE: _encode_tensors,
}


def _encode_failure(error: RequestError, form: Form, failed_images: int = 1) -> Response:
    """Encode an error: in our own form for raw and multipart requests, in theirs for the two protocols (`error`)."""
    if not (type(error.status) is int and 400 <= error.status <= 599):  # of a handler's own: it would end the worker
        error = InferenceError(str(error))
    body = build_error_body(error, failed_images)
    if form in (Form.KSERVE_V1, Form.OPEN_INFERENCE):
        body = {"error": body.pop("message"), **body}
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    return Response(error.status, orjson.dumps(body), headers=headers, error=type(error).__name__)


def _show_item(item: ImageResult) -> object:
    return {"error": build_error_body(item)} if isinstance(item, RequestError) else item


def build_error_body(error: RequestError, failed_images: int = 1) -> dict[str, Any]:
    """Return the error body of the HTTP contract; text that UTF-8 cannot carry is replaced."""
    message = _to_utf8(str(error)[:MAX_MESSAGE_CHARS]).translate(CONTROL_CHARACTERS)
    prefix = f"all {failed_images} images failed; the first: " if failed_images > 1 else ""
    return {"code": error.status, "type": type(error).__name__, "message": prefix + message}


def header_text(value: object) -> str:
    """Return a header that TorchServe can send: it ends the worker for what is no string, or no text."""
    return str(value).encode("ascii", errors="replace").decode("ascii").translate(CONTROL_CHARACTERS)


def _to_utf8(text: str) -> str:
    return text.encode("utf-8", errors="replace").decode("utf-8")
