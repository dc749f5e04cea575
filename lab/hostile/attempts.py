"""One request made of any bytes, read and decoded as a worker would: what hypothesis and atheris try by the million."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from vision_serving.config import ImageLimits
from vision_serving.errors import RequestError
from vision_serving.options import ClassificationOptions, ExplanationOptions, MaskOptions, parse_options
from vision_serving.pictures.decoding import decode_image
from vision_serving.requests.contents import Pixels
from vision_serving.requests.payload import HEADER_LENGTH, Payload, parse_payload

MAX_S = 2.0  # of the processor
LIMITS = ImageLimits(max_pixels=1_000_000)  # more would take the fuzzer's time and find nothing else
HeadersAndBody = tuple[Mapping[str, Any], dict[str, Any]]


class SlowRequestError(Exception):
    """A request that takes a worker longer than it may."""


def attempt_request(data: bytes) -> None:
    """Attempt a form that the first byte chooses. Raises SlowRequestError, or what a worker would not expect."""
    started = time.process_time()
    row, headers = REQUEST_FORMS[data[0] % len(REQUEST_FORMS)](data[1:]) if data else ({}, {})
    read_request(row, headers)
    seconds = time.process_time() - started
    if seconds > MAX_S:
        raise SlowRequestError(f"{seconds:.1f} s")


def read_request(row: Mapping[str, Any], headers: Mapping[str, Any]) -> Payload:
    """Return every picture and every kind of options of a request, each decoded or refused."""
    payload = parse_payload(row, headers)
    for options in (ClassificationOptions, MaskOptions, ExplanationOptions):
        try:
            parse_options(options, payload.options, {})
        except RequestError as error:
            check_refusal(error)
    for picture in payload.images:
        if isinstance(picture, RequestError):
            check_refusal(picture)
        elif not isinstance(picture, Pixels):
            attempt_picture(picture)
    return payload


def attempt_picture(picture: bytes) -> None:
    try:
        pixels = decode_image(picture, LIMITS)
    except RequestError as error:
        check_refusal(error)
        return
    assert pixels.dtype == "uint8"
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3


def check_refusal(error: RequestError) -> None:
    assert 400 <= error.status < 500, f"{error.status} {error}"
    assert str(error), f"{type(error).__name__} without a reason"


def _form(data: bytes) -> HeadersAndBody:
    """Read names and values between zeros; each second one is a file."""
    texts = data.split(b"\0")
    row = dict(zip((name.decode("utf-8", "replace") for name in texts[::2]), texts[1::2]))
    kinds = {name: {"content-type": "image/png" if index % 2 else ""} for index, name in enumerate(row)}
    return row, {**kinds, "Content-Type": "multipart/form-data; boundary=x"}


def _headers(data: bytes) -> HeadersAndBody:
    options, accept, kind = (*data.decode("latin-1").split("\0", 2), "", "")[:3]
    return {"body": b"x"}, {"X-Inference-Options": options, "Accept": accept, "Content-Type": kind}


REQUEST_FORMS: tuple[Callable[[bytes], HeadersAndBody], ...] = (
    lambda data: ({"body": data}, {"Content-Type": "image/png"}),
    lambda data: ({"body": data}, {"Content-Type": "application/json"}),
    lambda data: ({"body": data[2:]}, {HEADER_LENGTH: str(int.from_bytes(data[:2], "little"))}),  # where JSON ends
    _form,
    _headers,
)
