import base64
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_serving.errors import MalformedRequestError
from vision_serving.payload import Form, Payload, parse_options_header, parse_payload

PICTURE = b"\x89PNG picture"
JSON = {"Content-Type": "application/json"}
MULTIPART = {"content-type": "multipart/form-data; boundary=x"}


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


@pytest.mark.parametrize(
    ("row", "headers"),
    [
        ({"body": PICTURE}, {"Content-Type": "image/png"}),
        ({"body": bytearray(PICTURE)}, {"content-type": "application/octet-stream"}),
        ({"body": memoryview(PICTURE)}, {}),
        ({"data": PICTURE}, {"CONTENT-TYPE": "image/png"}),
    ],
    ids=["bytes", "bytearray", "no content type", "under the name data"],
)
def test_a_raw_body_is_one_image(row: dict[str, Any], headers: dict[str, Any]) -> None:
    assert parse_payload(row, headers) == Payload((PICTURE,), {}, Form.RAW)


def test_a_raw_body_that_torchserve_decoded_as_text_is_still_one_image() -> None:
    assert parse_payload({"body": "abc"}, {"content-type": "text/plain"}).images == (b"abc",)


def test_a_raw_body_takes_its_options_from_the_header() -> None:
    payload = parse_payload({"body": PICTURE}, {"X-Inference-Options": "top_k=3; score_threshold=0.4;"})
    assert payload.options == {"top_k": "3", "score_threshold": "0.4"}


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        (" ; ;", {}),
        ("a=1", {"a": "1"}),
        ("class_filter = cat, dog ;top_k= 2", {"class_filter": "cat, dog", "top_k": "2"}),
        ("a=b=c", {"a": "b=c"}),
        ("a=1;a=2", {"a": "2"}),
    ],
    ids=["empty", "only separators", "one", "spaces", "equals sign in the value", "the last one wins"],
)
def test_the_options_header_is_pairs(text: str, options: dict[str, str]) -> None:
    assert parse_options_header(text) == options


def test_an_options_header_without_a_value_is_refused_with_the_form() -> None:
    with pytest.raises(MalformedRequestError, match="expected name=value; name=value, got 'top_k'"):
        parse_payload({"body": PICTURE}, {"x-inference-options": "top_k"})


def test_multipart_gives_every_file_part_in_order_and_the_fields_as_options() -> None:
    row = {"first": PICTURE, "top_k": b"3", "second": bytearray(b"other")}
    headers: dict[str, Any] = {
        "first": {"content-type": "image/png"},
        "top_k": {"content-type": ""},
        "second": {"content-type": "application/octet-stream"},
        **MULTIPART,
    }
    assert parse_payload(row, headers) == Payload((PICTURE, b"other"), {"top_k": "3"}, Form.MULTIPART)


def test_a_multipart_field_wins_over_the_header() -> None:
    headers = {"f": {"content-type": "image/png"}, "X-Inference-Options": "top_k=1", **MULTIPART}
    assert parse_payload({"f": PICTURE, "top_k": b"2"}, headers).options == {"top_k": "2"}


@pytest.mark.parametrize("row", [{}, {"top_k": b"3"}], ids=["no part", "only fields"])
def test_multipart_without_a_file_is_refused(row: dict[str, bytes]) -> None:
    with pytest.raises(MalformedRequestError, match="no file part"):
        parse_payload(row, {"top_k": {"content-type": ""}, **MULTIPART})


@pytest.mark.parametrize("parse", [orjson.dumps, lambda document: document], ids=["bytes", "parsed by TorchServe"])
def test_kserve_v1_gives_its_instances_and_parameters(parse: Any) -> None:
    document = {"instances": [b64(PICTURE), b64(b"other")], "parameters": {"top_k": 3}}
    assert parse_payload({"body": parse(document)}, JSON) == Payload((PICTURE, b"other"), {"top_k": 3}, Form.KSERVE_V1)


def test_a_parsed_json_body_needs_no_content_type() -> None:
    assert parse_payload({"body": {"instances": [b64(PICTURE)]}}, {}).form is Form.KSERVE_V1


def test_json_parameters_win_over_the_header() -> None:
    document = {"instances": [b64(PICTURE)], "parameters": {"top_k": 3}}
    headers = {**JSON, "X-Inference-Options": "top_k=1; score_threshold=0.5"}
    assert parse_payload({"body": document}, headers).options == {"top_k": 3, "score_threshold": "0.5"}


@pytest.mark.parametrize(
    ("instance", "message"),
    [
        ({"b64": "not base64!"}, "not valid base64"),
        ({"b64": "abc"}, "not valid base64"),
        ({"b64": "é"}, "not valid base64"),
        ({"b64": 5}, "expected an instance"),
        ({}, "expected an instance"),
        ("text", "expected an instance"),
        (None, "expected an instance"),
        ([1, 2], "expected an instance"),
    ],
    ids=["wrong letters", "wrong padding", "not ASCII", "number", "no b64", "text", "null", "pixel list"],
)
def test_a_broken_instance_is_its_own_error_and_its_neighbours_are_read(instance: object, message: str) -> None:
    payload = parse_payload({"body": {"instances": [b64(PICTURE), instance, b64(b"other")]}}, JSON)
    assert payload.images[0] == PICTURE
    assert payload.images[2] == b"other"
    assert isinstance(payload.images[1], MalformedRequestError)
    assert message in str(payload.images[1])


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"5", b'"text"', b"[]", b"{}", b'{"instances": []}', b'{"instances": {}}',
     b'{"instances": [{"b64": "YQ=="}], "parameters": []}', b"\xff\xfe", b"[" * 100_000, None, 5, True,
     [], {}, [[]], {"instances": 5}],
    ids=lambda body: repr(body)[:40],
)  # fmt: skip
def test_json_of_another_form_is_refused(body: object) -> None:
    with pytest.raises(MalformedRequestError):
        parse_payload({"body": body}, JSON)


def test_an_empty_request_is_refused() -> None:
    with pytest.raises(MalformedRequestError, match="holds no image"):
        parse_payload({}, {"content-type": "image/png"})


@pytest.mark.parametrize("row", [{}, {"\x89PNG": b""}], ids=["nothing left", "mangled into fields"])
def test_curls_default_form_type_is_explained(row: dict[str, Any]) -> None:
    with pytest.raises(MalformedRequestError, match="-T FILE"):
        parse_payload(row, {"content-type": "application/x-www-form-urlencoded"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
names = st.sampled_from(["body", "data", "top_k", "image", "instances"]) | st.text(max_size=10)
documents = st.fixed_dictionaries(
    {"instances": json_values | st.lists(json_values)}, optional={"parameters": json_values}
)
content_types = st.sampled_from(
    ["application/json", "multipart/form-data", "image/png", "application/x-www-form-urlencoded", "text/plain", ""]
)


@settings(max_examples=300, deadline=None)
@given(
    row=st.dictionaries(names, json_values | documents, max_size=4),
    content_type=content_types,
    header=st.text(max_size=30),
    others=st.dictionaries(names, st.text(max_size=5) | st.dictionaries(st.just("content-type"), st.text(max_size=5))),
)
def test_any_request_is_a_payload_or_a_malformed_request(
    row: dict[str, Any], content_type: str, header: str, others: dict[str, Any]
) -> None:
    try:
        payload = parse_payload(row, {**others, "Content-Type": content_type, "X-Inference-Options": header})
    except MalformedRequestError:
        return
    assert payload.images
    assert all(isinstance(image, (bytes, MalformedRequestError)) for image in payload.images)


@settings(max_examples=200, deadline=None)
@given(
    body=st.binary(max_size=200) | st.text(max_size=200) | documents.map(lambda value: orjson.dumps(value, default=str))
)
def test_any_json_body_is_a_payload_or_a_malformed_request(body: bytes | str) -> None:
    try:
        parse_payload({"body": body}, JSON)
    except MalformedRequestError:
        return
