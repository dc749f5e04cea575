"""Requests that are nobody's good ones, each with the status that it ought to be answered with."""

from functools import partial

import orjson

from mar_tools.reliability.archives import SERVED
from mar_tools.reliability.traffic import Ask

PATH = f"/predictions/{SERVED}"
MOST_BYTES = 2048


def bad_requests(picture: bytes) -> tuple[Ask, ...]:
    """picture: an encoded image that would be served."""
    image, json = {"Content-Type": "image/jpeg"}, {"Content-Type": "application/json"}
    option = {**image, "X-Inference-Options": "top_k=none"}
    cases = (
        ("no image", b"this is no image", image, 400),
        ("empty", b"", image, 400),
        ("cut", picture[: len(picture) // 2], image, 400),
        ("not on the list of formats", b"%PDF-1.7 and so on", {"Content-Type": "application/pdf"}, 415),
        ("no JSON", b"{", json, 400),
        ("JSON that is no request", b"[null]", json, 400),
        ("JSON with an image that is none", b'{"instances": [{"b64": "AAAA"}]}', json, 400),
        ("multipart without parts", b"--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}, 400),
        ("an option that is none", picture, option, 422),
    )
    return tuple(
        Ask(name, PATH, body, headers, status, partial(_check_error, status), good=False)
        for name, body, headers, status in cases
    )


def _check_error(status: int, body: bytes) -> str:
    """Errors are short JSON that say their own status."""
    if len(body) > MOST_BYTES:
        return f"the body of the error has {len(body)} bytes"
    try:
        found = orjson.loads(body)["code"]
    except (ValueError, KeyError, TypeError):
        return f"no error of ours: {body[:200]!r}"
    return "" if found == status else f"its code is {found!r}"
