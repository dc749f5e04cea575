"""One request as TorchServe hands it over -> images and options, whatever form the client chose."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from numbers import Integral
from typing import Any

import numpy as np
import orjson

from vision_serving.errors import (
    MalformedRequestError,
    NotAcceptableError,
    PayloadTooLargeError,
    RequestError,
    UnsupportedFormatError,
)
from vision_serving.requests.accept import JSON_TYPE, choose_media_type
from vision_serving.requests.base64_text import decode_or_refuse
from vision_serving.requests.contents import NO_WISHES, AnswerWishes, Pixels, SentImage
from vision_serving.requests.open_inference import check_number, read_images, read_wishes

OPTIONS_HEADER = "x-inference-options"
HEADER_LENGTH = "Inference-Header-Content-Length"  # of V2 with binary data: where the JSON ends
FORM_URLENCODED = "application/x-www-form-urlencoded"
UNTYPED = ("", "application/octet-stream", "text/plain")  # a body that begins like JSON is JSON
BODY_NAMES = ("body", "data")
MODEL_NAME = "model_name"  # of /invocations?model_name=..., whose query TorchServe puts into the row
# A part is a number, or about 100 bytes of memory. All of a batch wait while they are read: 3 ms, or 25 ms of lists.
JSON_PARTS, MAX_JSON_PARTS = b',[{"', 160_000  # 224 x 224 pixels, as a flat list of numbers
READ = (bytes, RequestError)


class Form(Enum):
    """The form of a request decides the form of its answer."""

    RAW = "raw"
    MULTIPART = "multipart"
    KSERVE_V1 = "kserve v1"
    OPEN_INFERENCE = "open inference v2"


@dataclass(frozen=True)
class Payload:
    """Images in order (or why one could not be read), the raw options, and what decides the form of the answer.

    images              encoded ones may be given as any bytes-like object, and are kept as bytes
    answer_type         the media type of a good answer
    wants_explanation   whether the request came by `/explanations`
    """

    images: tuple[SentImage, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    form: Form = Form.RAW
    wishes: AnswerWishes = NO_WISHES
    answer_type: str = JSON_TYPE
    wants_explanation: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", tuple(map(_keep, self.images)))


def _keep(sent: Any) -> SentImage:
    """Return an image as a payload keeps it; of pixels with other sides than their bytes have, the error."""
    if not isinstance(sent, Pixels):
        return sent if isinstance(sent, READ) else bytes(memoryview(sent))
    sides = (sent.height, sent.width)
    if all(isinstance(side, Integral) and side > 0 for side in sides) and 3 * math.prod(sides) == len(sent.data):
        return sent
    return MalformedRequestError(
        f"expected 3 bytes a pixel, and sides above 0; got {len(sent.data)} bytes for height {sent.height!r} and width "
        f"{sent.width!r}"
    )


def parse_payload(row: Mapping[str, Any], headers: Mapping[str, Any]) -> Payload:
    """Read one row of a TorchServe batch. Never raises: a request that cannot be read is a payload of its error.

    row: parameter name -> bytes (or str / parsed JSON where TorchServe decodes). headers: as `get_all_request_header`
    gives them: HTTP headers, and for each parameter `{"content-type": ...}`, which is empty for a form field.
    """
    http_headers = {name.lower(): value for name, value in headers.items() if isinstance(value, str)}
    payload = _parse_body(row, headers, http_headers)
    if headers.get("explain") == "True":  # TorchServe sets it for /explanations; who sends it asks for the same
        payload = replace(payload, wants_explanation=True)
    answer_type = choose_media_type(http_headers.get("accept", ""))
    if answer_type != JSON_TYPE and len(payload.images) > 1:
        refusal = NotAcceptableError(
            f"{answer_type} is an answer to one image, and the request holds {len(payload.images)}; send them one by "
            f"one, or accept {JSON_TYPE}"
        )
        return replace(payload, images=(refusal,))
    return replace(payload, answer_type=answer_type)


def _parse_body(row: Mapping[str, Any], headers: Mapping[str, Any], http_headers: Mapping[str, str]) -> Payload:
    content_type = http_headers.get("content-type", "").partition(";")[0].strip().lower()
    body = row.get("body", row.get("data"))
    if body is not None and not isinstance(body, (dict, list)):
        body = _to_bytes(body)
    if content_type != "multipart/form-data" and _is_json(body, content_type, http_headers):
        return _parse_json(body, http_headers)
    try:
        options = _read_header(http_headers)
        if content_type == "multipart/form-data":
            return _parse_multipart(row, headers, options)
        if body is None or content_type == FORM_URLENCODED:
            raise MalformedRequestError(_describe_missing_image(row, content_type))
        return Payload(images=(body,), options={**_read_fields(row), **options})
    except RequestError as error:
        return Payload(images=(error.without_frames(),))


def parse_options_header(text: str) -> dict[str, str]:
    """Parse `top_k=3; score_threshold=0.4` to {"top_k": "3", ...}. Raises MalformedRequestError."""
    options = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, separator, value = part.partition("=")
        if not separator:
            raise MalformedRequestError(f"X-Inference-Options: expected name=value; name=value, got {part[:60]!r}")
        options[name.strip()] = value.strip()
    return options


def _read_header(http_headers: Mapping[str, str]) -> dict[str, str]:
    """Return the header's options. Raises UnsupportedFormatError for a compressed body: TorchServe unpacks none."""
    coding = http_headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity"):
        raise UnsupportedFormatError(f"the body is compressed (Content-Encoding: {coding[:20]}); send it as it is")
    return parse_options_header(_from_utf8(http_headers.get(OPTIONS_HEADER, "")))


def _from_utf8(header: str) -> str:
    """Decode a header: clients send UTF-8, and TorchServe takes each of its bytes for a character of Latin-1."""
    try:
        return header.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return header


def _read_fields(row: Mapping[str, Any]) -> dict[str, str]:
    """Return options beside a raw body: the query of /invocations, further entries of a gRPC request."""
    return {name: _to_text(value) for name, value in row.items() if name not in (*BODY_NAMES, MODEL_NAME)}


def _describe_missing_image(row: Mapping[str, Any], content_type: str) -> str:
    if content_type == FORM_URLENCODED:
        return (
            f"the body came as {FORM_URLENCODED}, curl's default for -d and --data-binary, which TorchServe parses as "
            "a form; send the image with -T FILE, or with -H 'Content-Type: image/jpeg'"
        )
    if row:
        return f"expected the image under the name 'data' or 'body', got {sorted(map(str, row))[:5]}"
    return "the request holds no image"


def _parse_multipart(row: Mapping[str, Any], headers: Mapping[str, Any], options: dict[str, str]) -> Payload:
    images = []
    for name, value in row.items():
        part_headers = headers.get(name)
        if isinstance(part_headers, dict) and part_headers.get("content-type"):  # a file; a form field has no type
            images.append(_to_bytes(value))
        elif name != MODEL_NAME:
            options[name] = _to_text(value)
    if not images:
        raise MalformedRequestError("the multipart request has no file part; send one with -F image=@photo.jpg")
    return Payload(images=tuple(images), options=options, form=Form.MULTIPART)


def _is_json(body: object, content_type: str, http_headers: Mapping[str, str]) -> bool:
    if content_type == "application/json" or HEADER_LENGTH.lower() in http_headers or isinstance(body, (dict, list)):
        return True
    return content_type in UNTYPED and isinstance(body, bytes) and body[:20].lstrip().startswith(b"{")


def _parse_json(body: object, http_headers: Mapping[str, str]) -> Payload:
    """Parse JSON. A document that cannot be read is a payload of its error, answered in the form that it shows."""
    form, wishes = Form.KSERVE_V1, NO_WISHES
    try:
        header_options = _read_header(http_headers)
        document, binary = _read_document(body, http_headers.get(HEADER_LENGTH.lower()))
        if "instances" not in document:
            form = Form.OPEN_INFERENCE
            wishes = read_wishes(document, has_status=bool(http_headers))  # a gRPC request has no HTTP headers
        options = {**header_options, **_read_parameters(document, form)}
        return Payload(IMAGE_READERS[form](document, binary), options, form, wishes)
    except RequestError as error:
        return Payload(images=(error.without_frames(),), form=form, wishes=wishes)


def _read_document(body: object, header_length: str | None) -> tuple[dict[str, Any], bytes]:
    """Return the JSON object of a body, and the binary data that follow it."""
    binary = b""
    if not isinstance(body, (dict, list)):
        content = _to_bytes(body)
        end = len(content) if header_length is None else _to_count(header_length)
        body, binary = _load_json(content[:end]), content[end:]
    if not isinstance(body, dict) or not body.keys() & IMAGE_KEYS:
        raise MalformedRequestError(
            'expected JSON of the form {"instances": [{"b64": "<base64 of an image>"}, ...]} (KServe V1), '
            'or {"inputs": [{"name": ..., "datatype": ..., "shape": ..., "data": ...}, ...]} (Open Inference, V2)'
        )
    return body, binary


def _load_json(body: bytes) -> object:
    """Raises MalformedRequestError, or PayloadTooLargeError for one that would take long, or much memory."""
    characters = np.frombuffer(body, np.uint8)
    parts = sum(np.count_nonzero(characters == part) for part in JSON_PARTS)
    if parts > MAX_JSON_PARTS:
        raise PayloadTooLargeError(
            f"the JSON has {parts:,} commas, brackets and quotes; the limit is {MAX_JSON_PARTS:,}, 224 x 224 pixels as "
            "a flat list; send a larger picture as a file (BYTES), or its pixels as binary data (binary_data_size)"
        )
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedRequestError(f"the body is not valid JSON: {str(error)[:100]}") from error


def _to_count(header_length: str) -> int:
    text = header_length.strip()[:20]
    if not (text.isascii() and text.isdigit()):
        raise MalformedRequestError(f"{HEADER_LENGTH}: expected a number, got {text!r}")
    return int(text)


def _read_parameters(document: Mapping[str, Any], form: Form) -> dict[str, Any]:
    parameters = document.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise MalformedRequestError(f'expected "parameters" to be an object, got {type(parameters).__name__}')
    return {name: value for name, value in parameters.items() if name not in PROTOCOL_PARAMETERS.get(form, ())}


def _read_instances(document: Mapping[str, Any], binary: bytes) -> tuple[SentImage, ...]:
    instances = document["instances"]
    if not isinstance(instances, list) or not instances:
        raise MalformedRequestError('expected "instances" to be a list of at least one {"b64": "<base64 of an image>"}')
    check_number(len(instances))
    if binary:
        raise MalformedRequestError("binary data follow the JSON; only the inputs of Open Inference (V2) have them")
    places = (f"instance {number} of {len(instances)}" for number in range(1, len(instances) + 1))
    return tuple(map(_decode_instance, instances, places))


def _decode_instance(instance: object, place: str) -> SentImage:
    """Decode `{"b64": text}`; the same under one name, as TensorFlow Serving and Vertex AI have it; or `{"data":
    text}`, as TorchServe's own KServe examples have it."""
    if isinstance(instance, dict):
        named = [value for value in instance.values() if isinstance(value, dict) and "b64" in value]
        holder = named[0] if len(named) == 1 else instance
        for name in ("b64", "data"):
            if name in holder:
                return decode_or_refuse(holder[name], place)
    return MalformedRequestError(f'{place}: expected the form {{"b64": "<base64 of an image>"}}')


def _read_inputs(document: Mapping[str, Any], binary: bytes) -> tuple[SentImage, ...]:
    inputs = document["inputs"]
    if not isinstance(inputs, list) or not inputs:
        raise MalformedRequestError('expected "inputs" to be a list of at least one tensor')
    return read_images(inputs, binary)


IMAGE_READERS: dict[Form, Callable[[Mapping[str, Any], bytes], tuple[SentImage, ...]]] = {
    Form.KSERVE_V1: _read_instances,
    Form.OPEN_INFERENCE: _read_inputs,
}
IMAGE_KEYS = {"instances", "inputs"}
PROTOCOL_PARAMETERS = {Form.OPEN_INFERENCE: ("binary_data_output", "content_type", "headers")}  # that are no options


def _to_text(value: object) -> str:
    return _to_bytes(value).decode("utf-8", errors="replace")


def _to_bytes(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", errors="replace")
    try:
        return value if isinstance(value, bytes) else bytes(memoryview(value))  # type: ignore[arg-type]
    except TypeError:  # nothing that holds bytes
        return b""
