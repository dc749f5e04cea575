"""Base64 as clients write it, by every protocol that carries it."""

import base64
import re
from typing import Any

import orjson
import pytest
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_serving.errors import MalformedRequestError
from vision_serving.requests.base64_text import decode_base64
from vision_serving.requests.payload import parse_payload

DATA = bytes(range(256)) + b"\xfb\xff\xfe"  # with both characters in which the alphabets differ
PLAIN = base64.b64encode(DATA).decode()
MIME = base64.encodebytes(DATA).decode()
SPELLINGS = {
    "plain": PLAIN,
    "MIME lines": MIME,
    "Windows lines": MIME.replace("\n", "\r\n"),
    "no padding": PLAIN.rstrip("="),
    "too much padding": PLAIN.rstrip("=") + "====",
    "lines before the padding": PLAIN.replace("=", "\n="),
    "URL-safe": base64.urlsafe_b64encode(DATA).decode(),
    "URL-safe lines without padding": base64.urlsafe_b64encode(DATA).decode().rstrip("=").replace("A", "A\n"),
    "data URI": f"data:image/png;base64,{PLAIN}",
    "data URI with parameters": f"DATA:image/svg+xml;charset=utf-8;name=a.png;Base64,{MIME}",
    "data URI without a type": f"data:;base64,{PLAIN}",
    "data URI with a space": f"data:image/png; base64,{PLAIN}",
    "spaces around": f"  {PLAIN}\n ",
}


def send_v1(text: str) -> dict[str, Any]:
    return {"instances": [{"b64": text}]}


def send_vertex(text: str) -> dict[str, Any]:
    return {"instances": [{"image": {"b64": text}}]}


def send_v1_data(text: str) -> dict[str, Any]:
    return {"instances": [{"data": text}]}


def send_v2(text: str) -> dict[str, Any]:
    return {"inputs": [{"name": "i", "datatype": "BYTES", "shape": [1], "data": [text]}]}


@pytest.mark.parametrize("send", [send_v1, send_vertex, send_v1_data, send_v2])
@pytest.mark.parametrize("text", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_is_read_in_json(text: str, send: Any) -> None:
    assert parse_payload({"body": orjson.dumps(send(text))}, {}).images == (DATA,)


@pytest.mark.parametrize("text", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_is_read_in_binary_tensors(text: str) -> None:
    element = len(text).to_bytes(4, "little") + text.encode()
    parameters = {"binary_data_size": len(element), "content_type": "base64"}
    head = orjson.dumps({"inputs": [{"datatype": "BYTES", "shape": [1], "parameters": parameters}]})
    headers = {"Inference-Header-Content-Length": str(len(head))}
    assert parse_payload({"body": head + element}, headers).images == (DATA,)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("YWJj!GVm", "character 5 of 8 is '!'"),
        ("YWJj\nZGV.", "character 9 of 9 is '.'"),
        ("data:;base64,YW*j", "character 16 of 17 is '*'"),
        ("YWJj ZGVm", "character 5 of 9 is ' '"),
        ("  YWJj ZGVm", "character 7 of 11 is ' '"),
        ("YQ==YWJj", "character 5 of 8 is 'Y'"),
        ("\xa0YWJj", "character 1 of 5 is '\\xa0'"),
        ("é", "character 1 of 1 is 'é'"),
        ("YWJj\ud800", "character 5 of 5 is '\\ud800'"),
        ("YWJj\0", "character 5 of 5 is '\\x00'"),
        ("data:image/png,YWJj", "character 5 of 19 is ':'"),
        ("YWJjZ", "it ends after 5 characters, in the middle of a byte"),
        (b"YW\xffj", "character 3 of 4 is 'ÿ'"),
    ],
)
def test_what_is_refused_says_where(text: str | bytes, fault: str) -> None:
    with pytest.raises(MalformedRequestError) as caught:
        decode_base64(text)
    assert str(caught.value) == f"the image is not valid base64: {fault}"


@settings(max_examples=examples(200), deadline=None)
@given(text=st.text(st.sampled_from("Aa+/-_= \n\rz0?é")) | st.text())
def test_any_text_is_bytes_or_refused_with_a_place_in_it(text: str) -> None:
    [read] = parse_payload({"body": {"instances": [{"b64": text}]}}, {}).images
    place = f"of {len(text)} is |after {len(text)} characters"
    assert isinstance(read, bytes) or (isinstance(read, MalformedRequestError) and re.search(place, str(read)))
