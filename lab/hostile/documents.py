"""JSON bodies that are no request: of KServe V1, and of Open Inference (V2) with and without binary data."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from lab.hostile.pictures import whole

JSON = {"Content-Type": "application/json"}
HEADER_LENGTH = "Inference-Header-Content-Length"
MALFORMED, TOO_LARGE, OPTION = "MalformedRequestError", "PayloadTooLargeError", "InvalidOptionError"
STATUSES = {
    MALFORMED: 400, "ImageDecodeError": 400, "NotAcceptableError": 406, TOO_LARGE: 413, "UnsupportedFormatError": 415,
    OPTION: 422,
}  # fmt: skip
TEXT = base64.b64encode(whole("PNG")).decode()
GOOD = {"b64": TEXT}
NESTED = b"[" * 1000 + b"]" * 1000  # orjson reads 1,024 levels, and Python prints fewer


@dataclass(frozen=True)
class Posted:
    """error: the type of the answer; empty for a picture that is to be served as without its odd headers."""

    body: bytes
    error: str = MALFORMED
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)

    @property
    def status(self) -> int:
        return STATUSES[self.error] if self.error else 200


def v1(*instances: Any, error: str = MALFORMED, **others: Any) -> Posted:
    return Posted(orjson.dumps({"instances": instances, **others}), error)


def v2(*inputs: Any, error: str = MALFORMED, **others: Any) -> Posted:
    return Posted(orjson.dumps({"inputs": inputs, **others}), error)


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "image", "datatype": "BYTES", "shape": [1], "data": [TEXT], **changes}


def pixels(shape: Any, data: Any) -> dict[str, Any]:
    return {"name": "image", "datatype": "UINT8", "shape": shape, "data": data}


def inside(template: bytes) -> bytes:
    return template.replace(b"?", NESTED)


def binary(head: Any, data: bytes, length: str | None = None, error: str = MALFORMED) -> Posted:
    """Post binary data. length: what the header says, by default the truth."""
    document = orjson.dumps(head)
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: length or str(len(document))}
    return Posted(document + data, error, headers)


def sized(size: Any, shape: list[int], datatype: str = "UINT8") -> dict[str, Any]:
    described = {"name": "image", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}
    return {"inputs": [described]}


DOCUMENTS: dict[str, Posted] = {
    "JSON, empty": Posted(b""),
    "JSON null": Posted(b"null"),
    "JSON true": Posted(b"true"),
    "JSON number": Posted(b"5"),
    "JSON text": Posted(b'"instances"'),
    "JSON list": Posted(b"[]"),
    "JSON list of instances": Posted(orjson.dumps([GOOD])),
    "JSON object without keys": Posted(b"{}"),
    "JSON of another protocol": Posted(b'{"image": "' + TEXT.encode() + b'"}'),
    "JSON that is cut off": Posted(b'{"instances": [{"b64": "'),
    "JSON with something behind it": Posted(b'{"instances": []} x'),
    "JSON with a comment": Posted(b'{"instances": [] /* none */}'),
    "JSON with a mark of byte order": Posted(b'\xef\xbb\xbf{"instances": []}'),
    "JSON in UTF-16": Posted('{"instances": []}'.encode("utf-16")),
    "JSON that is not UTF-8": Posted(b'{"instances": [{"b64": "\xff\xfe"}]}'),
    "JSON with a lone surrogate": Posted(rb'{"instances": [{"b64": "\ud800"}]}'),
    "JSON with NUL": Posted(b'{"instances": [{"b64": "\0"}]}'),
    "JSON NaN": Posted(b'{"instances": [NaN]}'),
    "JSON number of 400 digits": Posted(b'{"instances": [' + b"9" * 400 + b"]}"),
    "JSON number beyond floats": Posted(b'{"instances": [1e999]}'),
    "JSON of 100,000 open brackets": Posted(b"[" * 100_000),
    "JSON nested 50,000 deep": Posted(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "JSON of a million lists": Posted(b'{"instances": [' + b"[]," * 1_000_000 + b"[]]}", TOO_LARGE),
    "JSON, a key twice": Posted(b'{"instances": [{"b64": "' + TEXT.encode() + b'"}], "instances": []}'),
    "V1 instances null": Posted(b'{"instances": null}'),
    "V1 instances an object": Posted(b'{"instances": {"b64": "x"}}'),
    "V1 without instances": v1(),
    "V1 instance null": v1(None),
    "V1 instance number": v1(5),
    "V1 instance empty": v1({}),
    "V1 instance nested 1,000 deep": Posted(inside(b'{"instances": [?]}')),
    "V1 base64 null": v1({"b64": None}),
    "V1 base64 of a list": v1({"b64": [TEXT]}),
    "V1 not base64": v1({"b64": "%%%"}),
    "V1 base64 of two bytes, without its padding": v1({"b64": "YWI"}, error="ImageDecodeError"),
    "V1 base64 of nothing": v1({"b64": ""}, error="ImageDecodeError"),
    "V1 base64 of garbage": v1({"b64": "Z2FyYmFnZQ=="}, error="ImageDecodeError"),
    "V1, 65 instances": v1(*[{"b64": "YQ=="}] * 65, error=TOO_LARGE),
    "V1, 1,000 instances": v1(*[{"b64": "YQ=="}] * 1000, error=TOO_LARGE),
    "V1, 50,000 instances": v1(*[{}] * 50_000, error=TOO_LARGE),
    "V1 parameters a list": v1(GOOD, parameters=[1]),
    "V1 parameters unknown": v1(GOOD, parameters={"topk": 3}, error=OPTION),
    "V1 option below its range": v1(GOOD, parameters={"top_k": -1}, error=OPTION),
    "V1 option beyond integers": Posted(b'{"instances": [{"b64": ""}], "parameters": {"top_k": 1e300}}', OPTION),
    "V1 option of a megabyte": v1(GOOD, parameters={"top_k": "9" * 1_000_000}, error=OPTION),
    "V1 name of a megabyte": v1(GOOD, parameters={"9" * 1_000_000: 1}, error=OPTION),
    "V1 option nested 1,000 deep": Posted(inside(b'{"instances": [{}], "parameters": {"top_k": ?}}'), OPTION),
    "V2 inputs null": Posted(b'{"inputs": null}'),
    "V2 without inputs": v2(),
    "V2 input number": v2(5),
    "V2 without a datatype": v2({"name": "image", "shape": [1], "data": [TEXT]}),
    "V2 of floats": v2(tensor(datatype="FP32", data=[0.5])),
    "V2 datatype nested 1,000 deep": Posted(inside(b'{"inputs": [{"datatype": ?}]}')),
    "V2 name nested 1,000 deep": Posted(inside(b'{"inputs": [{"name": ?}]}')),
    "V2 shape nested 1,000 deep": Posted(inside(b'{"inputs": [{"datatype": "BYTES", "shape": ?}]}')),
    "V2 shape of nothing": v2(tensor(shape=[])),
    "V2 shape of a text": v2(tensor(shape="1")),
    "V2 side of 0": v2(tensor(shape=[0])),
    "V2 negative sides": v2(pixels([-1, -1, 3], [1, 2, 3])),
    "V2 sides whose product overflows": v2(pixels([2**62, 2**62, 3], [])),
    "V2 more elements than there can be": v2(tensor(shape=[2**62, 2**62]), error=TOO_LARGE),
    "V2 of nine axes": v2(tensor(shape=[1] * 9)),
    "V2 with too few elements": v2(tensor(shape=[2])),
    "V2 gray pixels": v2(pixels([2, 2], [0] * 4)),
    "V2 pixels above 255": v2(pixels([1, 1, 3], [0, 256, 0])),
    "V2 pixels that are fractions": v2(pixels([1, 1, 3], [0, 0.5, 0])),
    "V2 pixels, ragged": v2(pixels([1, 2, 3], [[[0, 0, 0], [0]]])),
    "V2 element that is no base64": v2(tensor(data=["%"])),
    "V2 id a number": v2(tensor(), id=5),
    "V2 outputs a text": v2(tensor(), outputs="predictions"),
    "V2 output unknown": v2(tensor(), outputs=[{"name": "nothing"}]),
    "V2 binary size too small": binary(sized(11, [2, 2, 3]), bytes(12)),
    "V2 binary size too large": binary(sized(2**40, [2, 2, 3]), bytes(12)),
    "V2 binary size negative": binary(sized(-12, [2, 2, 3]), bytes(12)),
    "V2 binary size a text": binary(sized("12", [2, 2, 3]), bytes(12)),
    "V2 binary of another shape": binary(sized(12, [4, 2, 3]), bytes(12)),
    "V2 binary element cut off": binary(sized(6, [1], "BYTES"), b"\xff\0\0\0ab"),
    "V2 header length too small": binary(sized(12, [2, 2, 3]), bytes(12), "5"),
    "V2 header length too large": binary(sized(12, [2, 2, 3]), bytes(12), "99999999999"),
    "V2 header length negative": binary(sized(12, [2, 2, 3]), bytes(12), "-1"),
    "V2 header length no number": binary(sized(12, [2, 2, 3]), bytes(12), "0x10"),
    "V2 header length of a picture": Posted(whole("PNG"), headers={HEADER_LENGTH: "10"}),
}
