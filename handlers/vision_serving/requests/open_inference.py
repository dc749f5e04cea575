"""What a request of the Open Inference Protocol (V2) holds: images in input tensors, and wishes for the answer."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from vision_serving.errors import MalformedRequestError, PayloadTooLargeError, RequestError
from vision_serving.requests.base64_text import decode_or_refuse
from vision_serving.requests.contents import AnswerWishes, Pixels, SentImage
from vision_serving.validation import shorten

MAX_IMAGES = 4096  # of one request: each costs memory before the archive's own limit is looked at
MAX_AXES = 8
LENGTH_BYTES = 4  # little-endian, before each element of a BYTES tensor in binary
EXPECTED = (
    "expected datatype BYTES (encoded images, in base64 where they are JSON), "
    "or UINT8 of shape [height, width, 3] or [n, height, width, 3] (RGB)"
)


def read_wishes(document: Mapping[str, Any], has_status: bool = True) -> AnswerWishes:
    """Read `id`, `outputs` and `binary_data_output` of a request. Raises MalformedRequestError."""
    request_id, outputs = document.get("id"), document.get("outputs") or []
    if not isinstance(request_id, str | None):
        raise MalformedRequestError(f'expected "id" to be a string, got {type(request_id).__name__}')
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise MalformedRequestError('expected "outputs" of the form [{"name": "predictions"}, ...]')
    if not all(isinstance(output.get("name"), str) for output in outputs):
        raise MalformedRequestError('each of "outputs" needs a "name"')
    binary = _read_parameter(document, "binary_data_output") is True
    wanted = {output["name"]: _read_parameter(output, "binary_data", binary) is True for output in outputs}
    return AnswerWishes(request_id, wanted, binary, has_status)


def read_images(inputs: Sequence[object], binary: bytes) -> tuple[SentImage, ...]:
    """Return the images of all tensors, in order. A tensor that cannot be read is one error in place of its images.

    binary: what follows the JSON, the tensors with a `binary_data_size` one after the other.
    Raises MalformedRequestError where the sizes are not those of `binary`, PayloadTooLargeError for too many images.
    """
    images: list[SentImage] = []
    for tensor, section in zip(inputs, _cut(inputs, binary), strict=True):
        images += _read_or_refuse(tensor, section)
        check_number(len(images))
    return tuple(images)


def check_number(images: int) -> None:
    """Raises PayloadTooLargeError."""
    if images > MAX_IMAGES:
        raise PayloadTooLargeError(f"{str(images)[:30]} images; no request may hold more than {MAX_IMAGES}")


def _cut(inputs: Sequence[object], binary: bytes) -> list[bytes | None]:
    """Return the binary data of each tensor, None where its data are JSON."""
    sections: list[bytes | None] = []
    start = 0
    for tensor in inputs:
        size = _read_parameter(tensor, "binary_data_size")
        if size is not None and not (type(size) is int and size >= 0):
            raise MalformedRequestError("expected binary_data_size to be a number of bytes")
        sections.append(None if size is None else binary[start : start + size])
        start += size or 0
    if start != len(binary):
        raise MalformedRequestError(
            f"the inputs' binary_data_size add up to {start} bytes; {len(binary)} follow the JSON "
            "(Inference-Header-Content-Length says where it ends)"
        )
    return sections


def _read_or_refuse(tensor: object, section: bytes | None) -> Sequence[SentImage]:
    try:
        return _read_tensor(tensor, section)
    except RequestError as error:
        name = shorten(tensor.get("name"), 60) if isinstance(tensor, dict) else type(tensor).__name__
        return (type(error)(f"input {name!r}: {error}"),)


def _read_tensor(tensor: object, section: bytes | None) -> Sequence[SentImage]:
    if not isinstance(tensor, dict):
        raise MalformedRequestError('expected {"name": ..., "datatype": ..., "shape": ..., "data": ...}')
    datatype, shape = shorten(tensor.get("datatype"), 20), tensor.get("shape")
    if datatype not in READERS:
        raise MalformedRequestError(f"datatype {datatype!r}; {EXPECTED}")
    if not (
        isinstance(shape, list) and 0 < len(shape) <= MAX_AXES and all(type(side) is int and side > 0 for side in shape)
    ):
        raise MalformedRequestError(f"shape {shorten(shape, 60)}; expected a list of numbers above 0")
    return READERS[datatype](tensor, shape, section)


def _read_encoded(tensor: dict[str, Any], shape: list[int], section: bytes | None) -> Sequence[SentImage]:
    """Read BYTES, one element an encoded image. In JSON an element is text, so it is base64; in binary it is the
    file, or base64 where the parameter `content_type` says so, as MLServer's clients do."""
    check_number(math.prod(shape))
    elements = _flatten(tensor.get("data"), shape) if section is None else list(_split_elements(section))
    _check_count(len(elements), shape)
    if section is not None and _read_parameter(tensor, "content_type") != "base64":
        return elements
    name = shorten(tensor.get("name"), 60)
    places = (f"input {name!r}, element {number} of {len(elements)}" for number in range(1, len(elements) + 1))
    return list(map(decode_or_refuse, elements, places))


def _read_pixels(tensor: dict[str, Any], shape: list[int], section: bytes | None) -> Sequence[SentImage]:
    """Read UINT8, decoded RGB images of one size."""
    if len(shape) not in (3, 4) or shape[-1] != 3:
        raise MalformedRequestError(f"shape {str(shape)[:60]}; {EXPECTED}")
    check_number(math.prod(shape[:-3]))
    try:
        data = bytes(_flatten(tensor.get("data"), shape)) if section is None else section
    except (TypeError, ValueError) as error:
        raise MalformedRequestError("expected whole numbers from 0 to 255") from error
    _check_count(len(data), shape)
    height, width, channels = shape[-3:]
    size = height * width * channels
    return [Pixels(data[start : start + size], height, width) for start in range(0, len(data), size)]


READERS: dict[str, Callable[[dict[str, Any], list[int], bytes | None], Sequence[SentImage]]] = {
    "BYTES": _read_encoded,
    "UINT8": _read_pixels,
}


def _flatten(data: object, shape: list[int]) -> list[Any]:
    """Return the elements of a flat or nested list, row by row. Raises MalformedRequestError for another shape."""
    if not isinstance(data, list):
        raise MalformedRequestError(f'expected "data" to be a list, got {type(data).__name__}')
    if data and isinstance(data[0], list):
        _check_count(len(data), shape[:1])
        for length in shape[1:]:
            if not all(isinstance(row, list) and len(row) == length for row in data):
                raise MalformedRequestError(f"the nested lists of data have not the shape {str(shape)[:60]}")
            data = list(chain.from_iterable(data))
    _check_count(len(data), shape)
    return data


def _check_count(count: int, shape: list[int]) -> None:
    expected = math.prod(shape)
    if count != expected:
        raise MalformedRequestError(f"{count} elements; the shape {str(shape)[:60]} needs {str(expected)[:30]}")


def _split_elements(section: bytes) -> Iterator[bytes]:
    """Yield the elements of a BYTES tensor in binary: a length of four bytes before each."""
    start = 0
    while start < len(section):
        begin = start + LENGTH_BYTES
        start = begin + int.from_bytes(section[start:begin], "little")
        if start > len(section):
            raise MalformedRequestError("an element of the binary data is cut off")
        yield section[begin:start]


def _read_parameter(holder: object, name: str, default: object = None) -> Any:
    """Read a parameter of a request, an input or an output."""
    parameters = holder.get("parameters") if isinstance(holder, dict) else None
    return parameters.get(name, default) if isinstance(parameters, dict) else default
