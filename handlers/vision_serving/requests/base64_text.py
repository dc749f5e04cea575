"""Files that came as base64, in every spelling that clients write."""

import base64
import re

from vision_serving.errors import MalformedRequestError
from vision_serving.requests.contents import SentImage

DATA_URI = re.compile(
    r"\s*data:[^,]{0,200}; {0,9}base64,", re.IGNORECASE | re.ASCII
)  # of browsers: data:image/png;base64,
SPELLING = re.compile(r"\s*[A-Za-z0-9+/_\-\r\n\t]*[=\r\n\t]*(?: *\Z)?", re.ASCII)  # what decode_base64 reads
URL_SAFE, LINE_ENDS = bytes.maketrans(b"-_", b"+/"), b"\r\n\t"


def decode_or_refuse(text: object, place: str) -> SentImage:
    """Decode the base64 of an image. What cannot be read is an error of this image alone, which names its place."""
    try:
        return decode_base64(text)
    except MalformedRequestError as error:
        return MalformedRequestError(f"{place}: {error}")


def decode_base64(text: object) -> bytes:
    """Decode base64 with line ends, without padding, in the URL-safe alphabet, or as a data URI, too.

    A space is refused: it may have been a plus that a form turned into one. Raises MalformedRequestError.
    """
    if not isinstance(text, (str, bytes)):
        raise MalformedRequestError(f"expected an image as a string of base64, got {type(text).__name__}")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:  # it is not of the plainest spelling
        return _decode_other_spelling(text if isinstance(text, str) else text.decode("latin-1"))


def _decode_other_spelling(text: str) -> bytes:
    prefix = DATA_URI.match(text)
    start = prefix.end() if prefix else 0
    encoded = text[start:].encode("ascii", errors="replace")  # a question mark is not of base64 either
    plain = encoded.strip().translate(URL_SAFE, LINE_ENDS).rstrip(b"=")
    try:
        return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
    except ValueError as error:
        raise MalformedRequestError(f"the image is not valid base64: {_find_fault(text, start)}") from error


def _find_fault(text: str, start: int) -> str:
    found = SPELLING.match(text, start)
    end = found.end() if found else start
    if end < len(text):
        return f"character {end + 1} of {len(text)} is {text[end]!r}"
    return f"it ends after {len(text)} characters, in the middle of a byte"
