"""A body and headers of HTTP -> a request in the shape that TorchServe gives to handlers: parameters by name."""

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

from mar_tools.ray_serving.exchange import Request
from mar_tools.ray_serving.refusals import RefusalError

# These headers go to a model and no others: handlers act on some (describe, explain).
PASSED = (
    "Content-Type",
    "Content-Encoding",
    "Accept",
    "Inference-Header-Content-Length",
    "X-Inference-Options",
)
FORM_PARTS = 256  # as the front's form_parts
PART_HEADER = 8192  # bytes
BOUNDARY = re.compile(r'boundary=(?:"([^"\r\n]{1,70})"|([^\s";,]{1,70}))', re.IGNORECASE)
PART_NAME = re.compile(r'(?:^|;)\s*name=(?:"((?:[^"\\]|\\.)*)"|([^\s";]+))', re.IGNORECASE)
OPTION_NAME = re.compile(r"[\w.-]+", re.ASCII)
CONTROL = re.compile(r"[\x00-\x1f\x7f;]")


def to_request(body: bytes, headers: Mapping[str, str], query: str, explains: bool) -> Request:
    """Return what a model is asked. headers: their names in lower case. Raises RefusalError.

    The query becomes options, as at the front: they stand behind those of the client's header, so the last one counts.
    """
    passed: dict[str, object] = {name: headers[name.lower()] for name in PASSED if name.lower() in headers}
    options = [*filter(None, [headers.get("x-inference-options", "")]), *read_query(query)]
    if options:
        passed["X-Inference-Options"] = "; ".join(options)
    if explains:
        passed["explain"] = "True"
    content_type = headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        return Request({}, passed)  # the model says that it is no image
    if kind != "multipart/form-data":
        return Request({"body": body}, passed)
    row = {}
    for name, part_type, content in read_parts(body, content_type):
        row[name] = content
        passed[name] = {"content-type": part_type}
    return Request(row, passed)


def read_query(query: str) -> list[str]:
    """Return `name=value` of each option in a query. Raises RefusalError for what could end an option."""
    options = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "model_name":
            continue
        if not OPTION_NAME.fullmatch(name):
            message = "the query holds a name that is none of an option; expected ?name=value&name=value"
            raise RefusalError(400, "QueryError", message)
        if CONTROL.search(value):
            raise RefusalError(400, "QueryError", f"the query's {name} holds a semicolon or a control character")
        options.append(f"{name}={value}".encode().decode("latin-1"))  # as all of a header comes
    return options


def read_parts(body: bytes, content_type: str) -> list[tuple[str, str, bytes]]:
    """Return name, content type (empty for a field) and content of each part. Raises RefusalError."""
    found = BOUNDARY.search(content_type)
    if found is None:
        expected = "expected Content-Type: multipart/form-data; boundary=WORD"
        raise RefusalError(415, "UnsupportedMediaTypeError", expected)
    mark = b"--" + (found[1] or found[2]).encode("latin-1")
    if not body:
        return []
    pieces = (b"\r\n" + body).split(b"\r\n" + mark, FORM_PARTS + 2)
    ends = [number for number, piece in enumerate(pieces) if number and piece.startswith(b"--")]
    if len(pieces) > FORM_PARTS + 2 or (ends and ends[0] > FORM_PARTS + 1):
        message = f"the form has more than {FORM_PARTS} parts; send fewer images a request"
        raise RefusalError(413, "TooManyPartsError", message)
    if pieces[0].strip() or not ends:
        expected = "the form does not begin and end with the boundary that Content-Type names"
        raise RefusalError(400, "FormError", expected)
    return [read_part(piece, number) for number, piece in enumerate(pieces[1 : ends[0]], 1)]


def read_part(piece: bytes, number: int) -> tuple[str, str, bytes]:
    """Return name, content type and content of a part. piece: what stands behind its delimiter."""
    head, mark, content = piece.partition(b"\r\n\r\n")
    if not mark or len(head) > PART_HEADER or not head.startswith(b"\r\n"):
        message = f"part {number} of the form has no header, or one that does not end within {PART_HEADER} bytes"
        raise RefusalError(400, "FormError", message)
    lines = head.decode("utf-8", errors="replace").split("\r\n")[1:]
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    disposition = fields.get("content-disposition", "")
    named = PART_NAME.search(disposition.partition(";")[2])
    if named is None or not (named[1] or named[2]):
        message = f'part {number} of the form has no name; expected Content-Disposition: form-data; name="image"'
        raise RefusalError(400, "FormError", message)
    is_file = re.search(r"(?:^|;)\s*filename\*?=", disposition, re.IGNORECASE) is not None
    kind = fields.get("content-type", "application/octet-stream") if is_file else ""
    return named[1] or named[2], kind, content
