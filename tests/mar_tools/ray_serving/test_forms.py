"""A body of HTTP becomes what TorchServe would give to a handler, or an error that says what is wrong."""

import pytest
import requests

from mar_tools.ray_serving.forms import FORM_PARTS, to_request
from mar_tools.ray_serving.refusals import RefusalError, to_answer
from mar_tools.ray_serving.routes import find_route

PICTURE = b"\x89PNG\r\n\x1a\n--x\r\n\r\n--x\x00\xff"  # of bytes that a reader of lines would change
FORM = {"content-type": "multipart/form-data; boundary=x"}
ENDED = b"\r\n--x--\r\n"
FIELD = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1'


def test_a_raw_body_is_the_body() -> None:
    asked = to_request(PICTURE, {"content-type": "image/png", "accept": "image/png"}, "", explains=False)
    assert asked == ({"body": PICTURE}, {"Content-Type": "image/png", "Accept": "image/png"})


def test_files_and_fields_of_a_form_are_told_apart_by_their_types() -> None:
    files = {"one": ("1.png", PICTURE, "image/png"), "two": ("2.bin", PICTURE)}
    sent = requests.Request("POST", "http://x", files=files, data={"top_k": "3"}).prepare()
    assert isinstance(sent.body, bytes)
    asked = to_request(sent.body, {"content-type": sent.headers["Content-Type"]}, "", explains=False)
    assert asked.row == {"top_k": b"3", "one": PICTURE, "two": PICTURE}
    types = {name: asked.headers[name]["content-type"] for name in asked.row}
    assert types == {"top_k": "", "one": "image/png", "two": "application/octet-stream"}


BROKEN = {
    "no boundary": (FIELD + ENDED, "multipart/form-data", 415),
    "another boundary": (FIELD + ENDED, "multipart/form-data; boundary=y", 400),
    "cut off": (FIELD, FORM["content-type"], 400),
    "something before it": (b"hello\r\n" + FIELD + ENDED, FORM["content-type"], 400),
    "a part without a header": (b"--x\r\n1" + ENDED, FORM["content-type"], 400),
    "a part without a name": (b"--x\r\nContent-Disposition: form-data\r\n\r\n1" + ENDED, FORM["content-type"], 400),
    "too many parts": (b"\r\n".join([FIELD] * (FORM_PARTS + 1)) + ENDED, FORM["content-type"], 413),
}


@pytest.mark.parametrize(("body", "content_type", "status"), BROKEN.values(), ids=BROKEN)
def test_a_form_that_cannot_be_read_is_refused(body: bytes, content_type: str, status: int) -> None:
    with pytest.raises(RefusalError) as refused:
        to_request(body, {"content-type": content_type}, "", explains=False)
    assert refused.value.status == status


def test_as_many_parts_as_the_front_takes_are_read() -> None:
    names = [FIELD.replace(b'"a"', b'"%d"' % number) for number in range(FORM_PARTS)]
    assert len(to_request(b"\r\n".join(names) + ENDED, FORM, "", explains=False).row) == FORM_PARTS


def test_the_query_stands_behind_the_options_of_the_header() -> None:
    headers = {"x-inference-options": "top_k=1"}
    asked = to_request(b"", headers, "top_k=2&class_filter=traffic%20light&model_name=digits", explains=False)
    assert asked.headers["X-Inference-Options"] == "top_k=1; top_k=2; class_filter=traffic light"


@pytest.mark.parametrize("query", ["a%20b=1", "top_k=1%3Bx=2", "top_k=%0A", "%C3%A9=1"])
def test_a_query_that_could_end_an_option_is_refused(query: str) -> None:
    with pytest.raises(RefusalError, match="query"):
        to_request(b"", {}, query, explains=False)


def test_the_route_alone_asks_for_an_explanation() -> None:
    sent = {"explain": "True", "describe": "True", "authorization": "Bearer secret"}
    assert to_request(b"", sent, "", explains=False).headers == {}
    assert to_request(b"", sent, "", explains=True).headers == {"explain": "True"}


def test_a_form_of_curl_is_told_by_the_model() -> None:
    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert to_request(b"a=b", kind, "", explains=False).row == {}


PATHS = {
    "/predictions/digits": ("predict", "digits", None),
    "/predictions/digits/1.0": ("predict", "digits", "1.0"),
    "/explanations/digits": ("explain", "digits", None),
    "/v1/models/digits:predict": ("predict", "digits", None),
    "/v2/models/digits/infer": ("predict", "digits", None),
    "/v2/models/digits:1.0/infer": ("predict", "digits", "1.0"),
    "/v2/models/digits/versions/1.0/infer": ("predict", "digits", "1.0"),
    "/v2/models/digits/versions/1.0/ready": ("model_ready", "digits", "1.0"),
    "/invocations": ("predict", "", None),
}


@pytest.mark.parametrize(("path", "expected"), PATHS.items(), ids=PATHS)
def test_a_path_names_what_is_done_and_the_model(path: str, expected: tuple[str, str, str | None]) -> None:
    route = find_route(path)
    assert route is not None
    assert (route.action, route.model, route.version) == expected


@pytest.mark.parametrize("path", ["/", "/predictions/", "/predictions/a\n", "/predictions/a/b/c"])
def test_other_paths_are_no_routes(path: str) -> None:
    assert find_route(path) is None


@pytest.mark.parametrize(("path", "has_error"), [("/predictions/x", False), ("/v1/x", True), ("/v2/x", True)])
def test_clients_of_the_protocols_find_the_message_where_they_look(path: str, has_error: bool) -> None:
    answer = to_answer(RefusalError(404, "NotFoundError", "nothing"), path)
    assert (b'"error":"nothing"' in answer.body) == has_error
