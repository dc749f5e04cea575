"""Multipart forms and headers that nobody needs; some are odd and still to be served, most are refused."""

from collections.abc import Iterable

from lab.hostile.documents import MALFORMED, OPTION, TOO_LARGE, Posted
from lab.hostile.pictures import whole

FORM = {"Content-Type": "multipart/form-data; boundary=limit"}
RAW = {"Content-Type": "application/octet-stream"}
OPTIONS = "X-Inference-Options"
PICTURE = whole("PNG")


def part(name: bytes, data: bytes, content_type: bytes | None = b"image/png", head: bytes = b"") -> bytes:
    kind = b"" if content_type is None else b"Content-Type: " + content_type + b"\r\n"
    file = b"" if content_type is None else b'; filename="a.png"'
    disposition = b'Content-Disposition: form-data; name="' + name + b'"' + file + b"\r\n"
    return b"--limit\r\n" + disposition + kind + head + b"\r\n" + data + b"\r\n"


def typed(content_type: str) -> dict[str, str]:
    return {"Content-Type": content_type}


PICTURE_PART, END = part(b"a", PICTURE), b"--limit--\r\n"


def form(*parts: bytes, error: str = MALFORMED, end: bytes = END) -> Posted:
    return Posted(b"".join(parts) + end, error, FORM)


def numbered(count: int) -> Iterable[bytes]:
    return (part(b"part%d" % number, b"x") for number in range(count))


def raw(error: str = "", body: bytes = PICTURE, **headers: str) -> Posted:
    """Post a raw body. headers: their names with _ for -."""
    return Posted(body, error, {**RAW, **{name.replace("_", "-"): value for name, value in headers.items()}})


def options(text: str, error: str = OPTION) -> Posted:
    return Posted(PICTURE, error, {**RAW, OPTIONS: text})


FORMS: dict[str, Posted] = {
    "form of no parts": form(),
    "form of no bytes": form(end=b""),
    "form with another boundary": Posted(PICTURE_PART + END, MALFORMED, typed("multipart/form-data; boundary=other")),
    "form with a boundary of 5,000 bytes": Posted(
        PICTURE_PART + END, MALFORMED, typed("multipart/form-data; boundary=" + "b" * 5000)
    ),
    "form that is cut off": form(PICTURE_PART, end=b""),
    "form that is cut off in a part": form(PICTURE_PART[:80], end=b""),
    "form with a line break in a name": form(part(b"a\r\nX: y", PICTURE)),
    "form with fields alone": form(part(b"top_k", b"3", None), part(b"a", b"b", None)),
    "form of 65 pictures": form(*numbered(65), error=TOO_LARGE),
    "form of 1,000 parts": form(*numbered(1000), error=TOO_LARGE),
    "form with an unknown field": form(part(b"a", PICTURE), part(b"topk", b"3", None), error=OPTION),
    "form whose field is a picture": form(part(b"a", PICTURE), part(b"top_k", PICTURE, None), error=OPTION),
    "form with a picture of garbage": form(part(b"a", b"garbage"), error="ImageDecodeError"),
    "form with an empty picture": form(part(b"a", b""), error="ImageDecodeError"),
    "form with a NUL in a name": form(part(b"a", PICTURE), part(b"top\0k", b"3", None), error=OPTION),
    "form with a name of 2,000 bytes": form(part(b"a", PICTURE), part(b"n" * 2000, b"3", None), error=OPTION),
    "form without a boundary": Posted(
        b"".join([part(b"a", PICTURE), b"--limit--\r\n"]), "ImageDecodeError", {"Content-Type": "multipart/form-data"}
    ),
    "form with a form in it": form(
        part(b"a", b"--inner\r\n\r\nx\r\n--inner--", b"multipart/form-data; boundary=inner"), error="ImageDecodeError"
    ),
}
FORM_TYPE = "application/x-www-form-urlencoded"
# What TorchServe's frontend cannot parse it answers itself, with a 500 that no handler can change; no worker sees it.
OF_THE_FRONTEND: dict[str, Posted] = {
    "picture as a form": Posted(PICTURE, "", typed(FORM_TYPE)),
    "form with a broken escape": Posted(b"a=%zz", "", typed(FORM_TYPE)),
    "part without a name": form(b"--limit\r\nContent-Type: image/png\r\n\r\n" + PICTURE + b"\r\n"),
    "part of an unknown encoding": form(part(b"a", PICTURE, head=b"Content-Transfer-Encoding: nonsense\r\n")),
    "part of an unknown character set": form(part(b"a", b"x", b"text/plain; charset=nonsense")),
}
REFUSED: dict[str, Posted] = {
    "options without a value": options("top_k", MALFORMED),
    "options with an empty value": options("top_k="),
    "options unknown": options("topk=3"),
    "options of another task": options("score_threshold=0.5"),
    "options below the range": options("top_k=-1"),
    "options beyond integers": options("top_k=" + "9" * 400),
    "options of 6,000 bytes": options("top_k=" + "9" * 6000),
    "options of 1,000 names": options("; ".join(f"a{number}=1" for number in range(600))),
    "options not ASCII": options("größe=3; ключ=1; 鍵=2"),
    "options with a command": options("top_k=$(reboot)"),
    "options with a path": options("../../etc/passwd=1"),
    "options with markup": options("<script>=1"),
    "options with a format": options("%s%n%x={0.__class__}"),
    "body said to be compressed": raw("UnsupportedFormatError", Content_Encoding="gzip"),
    "picture said to be JSON": raw(MALFORMED, Content_Type="application/json"),
    "picture said to be a form": raw("ImageDecodeError", b"garbage", Content_Type="multipart/form-data"),
    "garbage said to be a picture": raw("ImageDecodeError", b"garbage", Content_Type="image/png"),
    "garbage said to be text": raw("ImageDecodeError", b"garbage", Content_Type="text/plain; charset=utf-16"),
    "garbage to be described": raw("ImageDecodeError", b"garbage", describe="True"),
    "garbage to be explained": raw("ImageDecodeError", b"garbage", explain="True"),
    "nothing to be described": raw("ImageDecodeError", b"", describe="True"),
    "text as JSON without a type": raw(MALFORMED, b'{"image": 5}'),
    "two pictures as one drawing": Posted(
        form(part(b"a", PICTURE), part(b"b", PICTURE)).body, "NotAcceptableError", {**FORM, "Accept": "image/png"}
    ),
}
SERVED_ALL_THE_SAME: dict[str, Posted] = {
    "describe: True": raw(describe="True"),
    "describe: true": raw(describe="true"),
    "explain: true": raw(explain="true"),
    "a type of nonsense": raw(Content_Type=";;;=é"),
    "a type of text": raw(Content_Type="text/html; charset=nonsense"),
    "accepts nonsense": raw(Accept=";;q=,,*/*;q=x, image/é;q=1.0000, a/b;q=-1"),
    "accepts 1,000 types": raw(Accept=", ".join(f"a/b{number};q=0.1" for number in range(500))),
    "options of nothing": options(";;; ; ;", ""),
    "an option twice": options("top_k=1; top_k=5", ""),
    "a header of 6,000 bytes": raw(X_Long="a" * 6000),
    "a header not ASCII": raw(X_Name="größe 鍵"),
    "names of our own state": Posted(PICTURE, "", {**RAW, "body": "x", "data": "y", "ts_stream_next": "true"}),
}
