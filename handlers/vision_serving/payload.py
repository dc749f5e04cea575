"""One request as TorchServe hands it over -> encoded images and options, whatever form the client chose."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, TypeAlias

import orjson

from vision_serving.errors import MalformedRequestError, NotAcceptableError, RequestError
from vision_serving.media_types import JSON_TYPE, choose_media_type

OPTIONS_HEADER = "x-inference-options"
FORM_URLENCODED = "application/x-www-form-urlencoded"


class Form(Enum):
    """The form of a request decides the form of its answer."""

    RAW = "raw"
    MULTIPART = "multipart"
    KSERVE_V1 = "kserve v1"


Encoded: TypeAlias = bytes | RequestError


@dataclass(frozen=True)
class Payload:
    """Encoded images in order (or why one could not be read), the raw options, and the form of the request.

    answer_type: the media type that a good answer shall have.
    """

    images: tuple[Encoded, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    form: Form = Form.RAW
    answer_type: str = JSON_TYPE


def parse_payload(row: Mapping[str, Any], headers: Mapping[str, Any]) -> Payload:
    """Read one row of a TorchServe batch.

    row: parameter name -> bytes (or str / parsed JSON where TorchServe decodes). headers: as `get_all_request_header`
    gives them: HTTP headers, and for each parameter `{"content-type": ...}`, which is empty for a form field.
    Raises MalformedRequestError or NotAcceptableError.
    """
    http_headers = {name.lower(): value for name, value in headers.items() if isinstance(value, str)}
    payload = _parse_body(row, headers, http_headers)
    answer_type = choose_media_type(http_headers.get("accept", ""))
    if answer_type != JSON_TYPE and len(payload.images) > 1:
        raise NotAcceptableError(
            f"{answer_type} is an answer to one image, and the request holds {len(payload.images)}; send them one by "
            f"one, or accept {JSON_TYPE}"
        )
    return replace(payload, answer_type=answer_type)


def _parse_body(row: Mapping[str, Any], headers: Mapping[str, Any], http_headers: Mapping[str, str]) -> Payload:
    content_type = http_headers.get("content-type", "").partition(";")[0].strip().lower()
    options = parse_options_header(http_headers.get(OPTIONS_HEADER, ""))
    if content_type == "multipart/form-data":
        return _parse_multipart(row, headers, options)
    if not row or content_type == FORM_URLENCODED:
        raise MalformedRequestError(_describe_missing_image(content_type))
    body = row.get("body", row.get("data"))
    if content_type == "application/json" or isinstance(body, (dict, list)):
        return _parse_json(body, options)
    return Payload(images=(_to_bytes(body),), options=options)


def parse_options_header(text: str) -> dict[str, str]:
    """`top_k=3; score_threshold=0.4` -> {"top_k": "3", "score_threshold": "0.4"}. Raises MalformedRequestError."""
    options = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, separator, value = part.partition("=")
        if not separator:
            raise MalformedRequestError(f"X-Inference-Options: expected name=value; name=value, got {part[:60]!r}")
        options[name.strip()] = value.strip()
    return options


def _describe_missing_image(content_type: str) -> str:
    if content_type == FORM_URLENCODED:
        return (
            f"the body came as {FORM_URLENCODED}, curl's default for -d and --data-binary, which TorchServe parses as "
            "a form; send the image with -T FILE, or with -H 'Content-Type: image/jpeg'"
        )
    return "the request holds no image"


def _parse_multipart(row: Mapping[str, Any], headers: Mapping[str, Any], options: dict[str, str]) -> Payload:
    images = []
    for name, value in row.items():
        part_headers = headers.get(name)
        if isinstance(part_headers, dict) and part_headers.get("content-type"):  # a file; a form field has no type
            images.append(_to_bytes(value))
        else:
            options[name] = _to_bytes(value).decode("utf-8", errors="replace")
    if not images:
        raise MalformedRequestError("the multipart request has no file part; send one with -F image=@photo.jpg")
    return Payload(images=tuple(images), options=options, form=Form.MULTIPART)


def _parse_json(body: object, options: dict[str, str]) -> Payload:
    document = body if isinstance(body, (dict, list)) else _load_json(_to_bytes(body))
    instances = document.get("instances") if isinstance(document, dict) else None
    if not isinstance(instances, list) or not instances:
        raise MalformedRequestError('expected JSON of the form {"instances": [{"b64": "<base64 of an image>"}, ...]}')
    parameters = document.get("parameters", {}) if isinstance(document, dict) else {}
    if not isinstance(parameters, dict):
        raise MalformedRequestError(f'expected "parameters" to be an object, got {type(parameters).__name__}')
    images = tuple(_decode_instance(instance) for instance in instances)
    return Payload(images=images, options={**options, **parameters}, form=Form.KSERVE_V1)


def _load_json(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedRequestError(f"the body is not valid JSON: {str(error)[:100]}") from error


def _decode_instance(instance: object) -> Encoded:
    """A broken instance is an error of its own; its neighbours are served."""
    text = instance.get("b64") if isinstance(instance, dict) else None
    if not isinstance(text, str):
        return MalformedRequestError('expected an instance of the form {"b64": "<base64 of an image>"}')
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return MalformedRequestError("the instance's b64 is not valid base64")


def _to_bytes(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", errors="replace")
    return bytes(value) if isinstance(value, (bytes, bytearray, memoryview)) else b""
