import base64
import pickle
from array import array
from functools import partial
from typing import Any

import orjson
import pytest
from conftest import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from vision_serving.errors import MalformedRequestError, PayloadTooLargeError, RequestError, UnsupportedFormatError
from vision_serving.requests.contents import AnswerWishes, Pixels
from vision_serving.requests.payload import Form, Payload, parse_options_header, parse_payload

PICTURE = b"\x89PNG picture"
JSON = {"Content-Type": "application/json"}
MULTIPART = {"content-type": "multipart/form-data; boundary=x"}


def error_of(payload: Payload) -> RequestError:
    """Why a request could not be read."""
    (error,) = payload.images
    assert isinstance(error, RequestError)
    return error


def b64(data: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(data).decode()}


@pytest.mark.parametrize(
    ("row", "headers"),
    [
        ({"body": PICTURE}, {"Content-Type": "image/png"}),
        ({"body": PICTURE}, {}),
        ({"data": PICTURE}, {"CONTENT-TYPE": "image/png"}),
    ],
    ids=["bytes", "no content type", "under the name data"],
)
def test_a_raw_body_is_one_image(row: dict[str, Any], headers: dict[str, Any]) -> None:
    assert parse_payload(row, headers) == Payload((PICTURE,), {}, Form.RAW)


HEAD = b'{"inputs": [{"datatype": "UINT8", "shape": [1, 2, 3], "parameters": {"binary_data_size": 6}}]}'
BODIES: dict[str, tuple[bytes, dict[str, Any]]] = {
    "raw": (PICTURE, {"Content-Type": "application/octet-stream"}),
    "multipart": (PICTURE, {"body": {"content-type": "image/png"}, **MULTIPART}),
    "form field": (PICTURE, {"body": {"content-type": ""}, **MULTIPART}),
    "json": (b' {"instances": [{"b64": "YQ=="}]}', {}),
    "binary tensor": (HEAD + b"pixels", {"Inference-Header-Content-Length": str(len(HEAD))}),
}


@pytest.mark.parametrize(("body", "headers"), BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("hold", [bytearray, memoryview, partial(array, "B")], ids=["bytearray", "memoryview", "array"])
def test_what_holds_bytes_is_read_as_bytes_are(body: bytes, headers: dict[str, Any], hold: Any) -> None:
    """`pickle` shows types, too: it is bytes that came of it."""
    read, expected = parse_payload({"body": hold(body)}, headers), parse_payload({"body": body}, headers)
    assert pickle.dumps(read) == pickle.dumps(expected)


SIDES = [(7, 1), (0, 5), (0, 0), (-1, -1), (1.0, 1), ("1", 1), (1, None), (1 << 70, 1)]


@pytest.mark.parametrize(("height", "width"), SIDES, ids=str)
def test_pixels_with_other_sides_than_their_bytes_have_are_an_error_of_their_own(height: Any, width: Any) -> None:
    good = Pixels(b"abc", 1, 1)
    kept, refused = Payload((good, Pixels(b"abc", height, width))).images
    assert kept is good
    assert isinstance(refused, MalformedRequestError)
    assert f"got 3 bytes for height {height!r} and width {width!r}" in str(refused)


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
    error = error_of(parse_payload({"body": PICTURE}, {"x-inference-options": "top_k"}))
    assert "expected name=value; name=value, got 'top_k'" in str(error)


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
    error = error_of(parse_payload(row, {"top_k": {"content-type": ""}, **MULTIPART}))
    assert "no file part" in str(error)


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
        ({"b64": "bad!"}, "the image is not valid base64: character 4 of 4 is '!'"),
        ({"left": b64(PICTURE), "right": b64(PICTURE)}, 'expected the form {"b64": "<base64 of an image>"}'),
        ({}, "expected the form"),
        ("text", "expected the form"),
        (None, "expected the form"),
        ([1, 2], "expected the form"),
    ],
    ids=["wrong letters", "two images", "no b64", "text", "null", "pixel list"],
)
def test_a_broken_instance_is_its_own_error_and_its_neighbours_are_read(instance: object, message: str) -> None:
    payload = parse_payload({"body": {"instances": [b64(PICTURE), instance, b64(b"other")]}}, JSON)
    assert payload.images[0] == PICTURE
    assert payload.images[2] == b"other"
    assert isinstance(payload.images[1], MalformedRequestError)
    assert str(payload.images[1]).startswith(f"instance 2 of 3: {message}")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"5", b'"text"', b"[]", b"{}", b'{"instances": []}', b'{"instances": {}}',
     b'{"instances": [{"b64": "YQ=="}], "parameters": []}', b"\xff\xfe", b"[" * 100_000, None, 5, True,
     [], {}, [[]], {"instances": 5}],
    ids=lambda body: repr(body)[:40],
)  # fmt: skip
def test_json_of_another_form_is_refused_in_the_form_of_json(body: object) -> None:
    payload = parse_payload({"body": body}, JSON)
    assert isinstance(error_of(payload), MalformedRequestError)
    assert payload.form is Form.KSERVE_V1


def test_an_empty_request_is_refused() -> None:
    assert "holds no image" in str(error_of(parse_payload({}, {"content-type": "image/png"})))


@pytest.mark.parametrize("row", [{}, {"\x89PNG": b""}], ids=["nothing left", "mangled into fields"])
def test_curls_default_form_type_is_explained(row: dict[str, Any]) -> None:
    error = error_of(parse_payload(row, {"content-type": "application/x-www-form-urlencoded"}))
    assert "-T FILE" in str(error)


@pytest.mark.parametrize(
    "instance",
    [
        {"image_bytes": b64(PICTURE)},
        {"image_bytes": b64(PICTURE), "key": "first"},
        {"data": b64(PICTURE)["b64"]},
        {"data": b64(PICTURE)["b64"], "target": 0},
    ],
    ids=["under one name", "with a key", "data", "data and target"],
)
def test_instances_as_other_servers_have_them_are_read(instance: dict[str, Any]) -> None:
    assert parse_payload({"body": {"instances": [instance]}}, JSON).images == (PICTURE,)


@pytest.mark.parametrize("content_type", ["", "application/octet-stream", "text/plain"])
def test_a_body_without_a_telling_type_that_begins_like_json_is_json(content_type: str) -> None:
    body = b"  " + orjson.dumps({"instances": [b64(PICTURE)]})
    assert parse_payload({"body": body}, {"content-type": content_type}).form is Form.KSERVE_V1


def test_a_body_that_says_to_be_an_image_is_no_json() -> None:
    assert parse_payload({"body": b"{"}, {"content-type": "image/png"}) == Payload((b"{",))


def test_options_beside_a_raw_body_come_from_the_query_of_invocations_or_a_grpc_request() -> None:
    row = {"model_name": b"digits", "top_k": b"3", "data": PICTURE}
    assert parse_payload(row, {}).options == {"top_k": "3"}
    assert parse_payload(row, {"x-inference-options": "top_k=1"}).options == {"top_k": "1"}


def test_the_model_name_of_invocations_is_no_field_of_multipart() -> None:
    headers: dict[str, Any] = {"image": {"content-type": "image/png"}, **MULTIPART}
    assert parse_payload({"model_name": b"digits", "image": PICTURE}, headers).options == {}


def test_an_image_under_another_name_is_refused_with_the_names() -> None:
    assert "under the name 'data' or 'body', got ['image']" in str(error_of(parse_payload({"image": PICTURE}, {})))


@pytest.mark.parametrize("content_type", ["image/png", "application/json"])
def test_a_compressed_body_is_refused(content_type: str) -> None:
    error = error_of(parse_payload({"body": b"\x1f\x8b"}, {"content-type": content_type, "content-encoding": "gzip"}))
    assert isinstance(error, UnsupportedFormatError)
    assert "Content-Encoding: gzip" in str(error)


def test_more_instances_than_any_archive_serves_are_one_error() -> None:
    error = error_of(parse_payload({"body": {"instances": [{}] * 100_000}}, JSON))
    assert isinstance(error, PayloadTooLargeError)


def pixels_as_json(height: int, width: int) -> bytes:
    data = [0] * (3 * height * width)
    inputs = [{"name": "x", "datatype": "UINT8", "shape": [height, width, 3], "data": data}]
    return orjson.dumps({"inputs": inputs})


def test_json_holds_pixels_up_to_its_limit() -> None:
    payload = parse_payload({"body": pixels_as_json(224, 224)}, JSON)
    assert payload.images == (Pixels(bytes(3 * 224 * 224), 224, 224),)


COSTLY_JSON = {
    "numbers": pixels_as_json(232, 232),
    "numbers, far more": pixels_as_json(1500, 1500),
    "lists": b'{"instances": [' + b"[]," * 81_000 + b"1]}",
    "objects": b'{"instances": [' + b'{"k":1},' * 41_000 + b"1]}",
    "names": b'{"instances": {' + b'"k":1,' * 54_000 + b'"k":1}}',
    "texts": b'{"inputs": [' + b'"a",' * 54_000 + b"1]}",
}


@pytest.mark.parametrize("headers", [JSON, {"Content-Type": "application/octet-stream"}, {}])
@pytest.mark.parametrize("body", COSTLY_JSON.values(), ids=COSTLY_JSON)
def test_json_that_takes_long_to_read_is_refused_with_what_to_send_instead(
    body: bytes, headers: dict[str, str]
) -> None:
    error = error_of(parse_payload({"body": bytearray(body)}, headers))
    assert isinstance(error, PayloadTooLargeError)
    assert "the limit is 160,000" in str(error)
    assert "as a file (BYTES), or its pixels as binary data (binary_data_size)" in str(error)


def test_a_large_picture_in_base64_is_no_costly_json() -> None:
    picture = bytes(range(256)) * 80_000
    assert parse_payload({"body": orjson.dumps({"instances": [b64(picture)]})}, JSON).images == (picture,)


# Open Inference Protocol


def encoded_input(*images: bytes, **changes: Any) -> dict[str, Any]:
    data = [base64.b64encode(image).decode() for image in images]
    return {"name": "image", "datatype": "BYTES", "shape": [len(images)], "data": data, **changes}


def test_open_inference_gives_its_inputs_parameters_and_wishes() -> None:
    document = {
        "id": "42",
        "inputs": [encoded_input(PICTURE), encoded_input(b"other")],
        "outputs": [{"name": "predictions"}],
        "parameters": {"top_k": 3, "binary_data_output": True, "content_type": "base64"},
    }
    wishes = AnswerWishes("42", {"predictions": True}, binary=True)
    expected = Payload((PICTURE, b"other"), {"top_k": 3}, Form.OPEN_INFERENCE, wishes)
    assert parse_payload({"body": orjson.dumps(document)}, JSON) == expected


def test_binary_tensors_follow_the_json() -> None:
    tensor = len(PICTURE).to_bytes(4, "little") + PICTURE
    size = {"parameters": {"binary_data_size": len(tensor)}}
    head = orjson.dumps({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1, 1], **size}]})
    headers = {"Inference-Header-Content-Length": str(len(head))}  # and no content type, as tritonclient sends it
    payload = parse_payload({"body": head + tensor}, headers)
    assert (payload.images, payload.form) == ((PICTURE,), Form.OPEN_INFERENCE)


@pytest.mark.parametrize("length", ["", "many", "-1", "1.5", "²", "9" * 100], ids=lambda text: text[:5])
def test_a_wrong_length_of_the_json_is_refused(length: str) -> None:
    headers = {"Inference-Header-Content-Length": length}
    assert isinstance(error_of(parse_payload({"body": b"{}"}, headers)), MalformedRequestError)


def test_an_error_of_an_open_inference_request_keeps_its_id() -> None:
    payload = parse_payload({"body": {"id": "42", "inputs": [], "parameters": None}}, JSON)
    assert isinstance(error_of(payload), MalformedRequestError)
    assert (payload.form, payload.wishes.id) == (Form.OPEN_INFERENCE, "42")


def test_a_request_without_http_headers_came_by_grpc_which_has_no_status() -> None:
    body = {"inputs": [encoded_input(PICTURE)]}
    assert not parse_payload({"body": body}, {"body": {"content-type": "application/json"}}).wishes.has_status
    assert parse_payload({"body": body}, JSON).wishes.has_status


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
names = st.sampled_from(["body", "data", "top_k", "image", "instances", "model_name"]) | st.text(max_size=10)
tensor_parameters = st.fixed_dictionaries(
    {}, optional={"binary_data_size": st.integers(-1, 30) | json_values, "content_type": st.just("base64")}
)
tensors = st.fixed_dictionaries(
    {
        "name": st.text(max_size=5) | json_values,
        "datatype": st.sampled_from(["BYTES", "UINT8", "FP32"]) | json_values,
        "shape": st.lists(st.sampled_from([1, 2, 3, 0, -1, 2**62]), max_size=5) | json_values,
    },
    optional={
        "data": st.lists(st.integers(0, 300) | st.sampled_from(["YQ==", "?"]), max_size=12) | json_values,
        "parameters": tensor_parameters | json_values,
    },
)
documents = st.fixed_dictionaries(
    {"instances": json_values | st.lists(json_values)}, optional={"parameters": json_values}
) | st.fixed_dictionaries(
    {"inputs": json_values | st.lists(tensors, max_size=3) | st.lists(json_values)},
    optional={"parameters": json_values, "id": json_values, "outputs": json_values | st.lists(json_values)},
)
content_types = st.sampled_from(
    ["application/json", "multipart/form-data", "image/png", "application/x-www-form-urlencoded", "text/plain", ""]
)


def assert_well_formed(payload: Payload) -> None:
    assert payload.images
    assert all(isinstance(image, (bytes, Pixels, RequestError)) for image in payload.images)


@settings(max_examples=examples(300), deadline=None)
@given(
    row=st.dictionaries(names, json_values | documents, max_size=4),
    content_type=content_types,
    header=st.text(max_size=30),
    others=st.dictionaries(names, st.text(max_size=5) | st.dictionaries(st.just("content-type"), st.text(max_size=5))),
)
def test_any_request_is_a_payload(row: dict[str, Any], content_type: str, header: str, others: dict[str, Any]) -> None:
    headers = {**others, "Content-Type": content_type, "X-Inference-Options": header}
    assert_well_formed(parse_payload(row, headers))


@settings(max_examples=examples(400), deadline=None)
@given(
    head=st.binary(max_size=200) | documents.map(lambda value: orjson.dumps(value, default=str)),
    binary=st.binary(max_size=60),
    length=st.none() | st.integers(-5, 300).map(str) | st.text(max_size=5),
    coding=st.sampled_from(["", "gzip"]),
)
def test_any_json_with_anything_behind_it_is_a_payload(
    head: bytes, binary: bytes, length: str | None, coding: str
) -> None:
    end = str(len(head)) if length is None else length
    headers = {"Inference-Header-Content-Length": end, "Content-Encoding": coding}
    assert_well_formed(parse_payload({"body": head + binary}, headers))
    assert_well_formed(parse_payload({"body": head}, JSON))


@pytest.mark.parametrize("header", ["class_filter=Käse", "class_filter=Käse".encode().decode("latin-1")])
def test_an_option_in_utf8_is_read_as_it_was_sent(header: str) -> None:
    assert parse_payload({"body": PICTURE}, {"X-Inference-Options": header}).options == {"class_filter": "Käse"}
