"""What a load test asks: a served model, and images as requests in the form that its server expects."""

import base64
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import orjson

from mar_tools.load_testing.answers import Expected

Encoding = Literal["raw", "v2_binary", "v2_json"]
Encoded = tuple[dict[str, str], bytes]

HEADER_LENGTH = "Inference-Header-Content-Length"
LENGTH_PREFIX = struct.Struct("<I")  # before each element of a BYTES tensor


@dataclass(frozen=True)
class Target:
    """One served model. url: of its predictions. headers: of every request (the token). pid: root of its processes."""

    name: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    pid: int | None = None


@dataclass(frozen=True)
class Request:
    """One image as a request. expected: None where nobody knows the right answer."""

    body: bytes
    headers: Mapping[str, str]
    encoding: Encoding = "raw"
    expected: Expected | None = None

    def is_right(self, answer: bytes) -> bool:
        """Return whether the body of a 200 answers the request: any body does where nothing is expected."""
        return self.expected is None or self._satisfies(self.expected.matches, answer)

    def has_same_classes(self, answer: bytes) -> bool:
        """Return whether it names the expected classes and no others. Raises ValueError where none are known."""
        if self.expected is None:
            raise ValueError("nothing is expected of this request")
        return self._satisfies(self.expected.has_same_classes, answer)

    def _satisfies(self, check: Callable[[bytes], bool], answer: bytes) -> bool:
        try:
            return check(decode_answer(self.encoding, answer))
        except (ValueError, KeyError, IndexError, TypeError, struct.error):  # not of the form of its encoding
            return False


def prepare_requests(
    images: Sequence[bytes], encoding: Encoding = "raw", expected: Sequence[Expected] | None = None
) -> list[Request]:
    """Return one request an image, with its expected answer where there are any."""
    answers: Sequence[Expected | None] = [None] * len(images) if expected is None else expected
    encoded = (encode_request(encoding, image) for image in images)
    return [Request(body, headers, encoding, answer) for (headers, body), answer in zip(encoded, answers, strict=True)]


def encode_request(encoding: Encoding, jpeg: bytes) -> Encoded:
    """Return an image as (headers, body).

    raw        the image itself
    v2_binary  Open Inference Protocol with the binary tensor extension: one BYTES input `image` of shape (1, 1)
    v2_json    the same input as JSON, the image in base64, for servers without that extension (MLServer)
    """
    return REQUEST_ENCODERS[encoding](jpeg)


def decode_answer(encoding: Encoding, body: bytes) -> bytes:
    """Return the handler's own JSON. Raises ValueError, KeyError, IndexError, TypeError or struct.error."""
    return body if encoding == "raw" else _decode_v2(body)


def _encode_v2_binary(jpeg: bytes) -> Encoded:
    tensor = LENGTH_PREFIX.pack(len(jpeg)) + jpeg
    size = {"binary_data_size": len(tensor)}
    document = {
        "inputs": [{"name": "image", "shape": [1, 1], "datatype": "BYTES", "parameters": size}],
        "parameters": {"binary_data_output": True},
    }
    header = orjson.dumps(document)
    return {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(header))}, header + tensor


def _encode_v2_json(jpeg: bytes) -> Encoded:
    form = {"content_type": "base64"}
    data = [base64.b64encode(jpeg).decode()]
    tensor = {"name": "image", "shape": [1, 1], "datatype": "BYTES", "parameters": form, "data": data}
    return {"Content-Type": "application/json"}, orjson.dumps({"inputs": [tensor]})


REQUEST_ENCODERS: dict[Encoding, Callable[[bytes], Encoded]] = {
    "raw": lambda jpeg: ({"Content-Type": "image/jpeg"}, jpeg),
    "v2_binary": _encode_v2_binary,
    "v2_json": _encode_v2_json,
}


def _decode_v2(body: bytes) -> bytes:
    """Return the one element of the first output, which is in the JSON or, as a binary tensor, after it."""
    document, end = json.JSONDecoder().raw_decode(body.decode("latin-1"))  # one character a byte
    if "data" in document["outputs"][0]:
        data = orjson.loads(body[:end])["outputs"][0]["data"]
        while isinstance(data, list):
            data = data[0]
        return str(data).encode()
    (length,) = LENGTH_PREFIX.unpack_from(body, end)
    return body[end + LENGTH_PREFIX.size :][:length]
