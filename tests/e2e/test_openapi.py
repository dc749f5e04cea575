"""Real answers are what docs/use/openapi.yaml says, and its examples are true."""

import io
from typing import Any

import PIL.Image
import pytest
from api_description import ApiDescription

from .conftest import EXAMPLES, Served

API = ApiDescription()
PREDICT = "/predictions/{model}"
V1 = "/v1/models/{model}:predict"
V2 = "/v2/models/{model}/infer"
SEVEN = EXAMPLES / "digits_classification" / "samples" / "seven.png"
SCENE = EXAMPLES / "digits_detection" / "samples" / "scene_3.jpg"
OCTETS = {"Content-Type": "application/octet-stream"}
SCORE_TOLERANCE = 0.02  # between precisions and kinds of CPU


def ask(served: Served, path: str, model: str = "digits", **arguments: Any) -> Any:
    """The answer to a request, which is of the form that the document has for it."""
    response = served.request("POST", path.format(model=model, version="1.0"), **arguments)
    API.check_answer(path, response)
    return response


def encoded(size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("1", size).save(buffer, "PNG")
    return buffer.getvalue()


NO_TOKEN = ("BadRequest", "no_token")
# An example of the document -> the request that it answers: path, model, and arguments of `requests`.
ERRORS: dict[tuple[str, str], tuple[str, str, dict[str, Any]]] = {
    ("BadRequest", "no_image"): (PREDICT, "digits", {"data": b"", "headers": OCTETS}),
    ("BadRequest", "malformed"): (PREDICT, "digits", {"files": {"top_k": (None, "1")}}),
    NO_TOKEN: (PREDICT, "digits", {"data": b"", "headers": {**OCTETS, "Authorization": ""}}),
    ("NotFound", "model"): (PREDICT, "flowers", {"data": b"", "headers": OCTETS}),
    ("NotFound", "version"): ("/predictions/{model}/9.9", "digits", {"data": b"", "headers": OCTETS}),
    ("TooLarge", "pixels"): (PREDICT, "digits", {"data": encoded((10000, 10000)), "headers": OCTETS}),
    ("UnsupportedFormat", "pdf"): (PREDICT, "digits", {"data": b"%PDF-1.7", "headers": OCTETS}),
    ("InvalidOption", "unknown"): (
        PREDICT,
        "digits",
        {"data": SEVEN.read_bytes(), "headers": {**OCTETS, "X-Inference-Options": "topk=2"}},
    ),
}


def test_every_example_of_an_error_is_asked_for() -> None:
    responses = API.document["components"]["responses"]
    errors = {(name, example) for name in responses for example in API.examples(responses[name])}
    assert {pair for pair in errors if pair[0] != "Predictions"} == ERRORS.keys()


@pytest.mark.parametrize("example", ERRORS, ids=" ".join)
def test_an_example_of_an_error_is_true(served: Served, example: tuple[str, str]) -> None:
    if example == NO_TOKEN and not served.token:
        pytest.skip("this server asks for no token")
    path, model, arguments = ERRORS[example]
    response = served.request("POST", path.format(model=model), **arguments)
    API.check_answer("/predictions/{model}/{version}", response)
    expected = API.examples(API.document["components"]["responses"][example[0]])[example[1]]
    assert cut(response.json()) == cut(expected)


def cut(error: dict[str, Any]) -> dict[str, Any]:
    """Without the part of the message that lists what this server can do."""
    return {**error, "message": error["message"].partition("; send one of")[0]}


def approximate(value: Any) -> Any:
    """Numbers within a tolerance, at any depth: pytest's own `approx` does not look into lists of dicts."""
    if isinstance(value, dict):
        return {name: approximate(each) for name, each in value.items()}
    if isinstance(value, list):
        return [approximate(each) for each in value]
    if isinstance(value, float):
        return pytest.approx(value, abs=SCORE_TOLERANCE if value <= 1 else 1)  # a score, or pixels of a box
    return value


def test_the_examples_of_predictions_are_true(served: Served) -> None:
    examples = API.examples(API.document["components"]["responses"]["Predictions"])
    headers = {**OCTETS, "X-Inference-Options": "top_k=2"}
    seven = ask(served, PREDICT, data=SEVEN.read_bytes(), headers=headers)
    assert seven.json() == approximate(examples["classification"])
    scene = ask(served, PREDICT, "digits_detection", data=SCENE.read_bytes(), headers=OCTETS)
    assert scene.json() == approximate(examples["detection"])


@pytest.mark.parametrize("path", [V1, V2])
def test_the_examples_of_a_protocol_are_true(served: Served, path: str) -> None:
    operation = API.document["paths"][path]["post"]
    request = API.examples(operation["requestBody"])["digits"]
    answer = ask(served, path, json=request).json()
    expected = API.examples(operation["responses"]["200"])["digits"]
    for found, wanted in zip(answer.get("predictions", []), expected.get("predictions", [])):
        if "error" in found:
            found["error"], wanted["error"] = cut(found["error"]), cut(wanted["error"])
    assert answer == approximate(expected)


@pytest.mark.parametrize("path", ["/explanations/{model}", "/explanations/{model}/{version}"])
def test_an_explanation_is_as_described(served: Served, path: str) -> None:
    assert "heat_map" in ask(served, path, data=SEVEN.read_bytes(), headers=OCTETS).json()
    picture = ask(served, path, data=SEVEN.read_bytes(), headers={**OCTETS, "Accept": "image/png"})
    assert picture.headers["Content-Type"] == "image/png"
    files = {"a": ("a.png", SEVEN.read_bytes(), "image/png"), "b": ("b.png", b"no image", "image/png")}
    assert len(ask(served, path, files=files).json()["results"]) == 2
    assert ask(served, path, "digits_detection", data=SCENE.read_bytes(), headers=OCTETS).status_code == 501


def test_a_picture_is_an_answer_to_one_image_as_described(served: Served) -> None:
    accept = {"Accept": "image/png"}
    assert ask(served, PREDICT, data=SEVEN.read_bytes(), headers={**OCTETS, **accept}).status_code == 200
    files = {name: (f"{name}.png", SEVEN.read_bytes(), "image/png") for name in ("a", "b")}
    assert ask(served, PREDICT, files=files, headers=accept).status_code == 406


def test_a_form_gets_results(served: Served) -> None:
    files = {"a": ("a.png", SEVEN.read_bytes(), "image/png"), "b": ("b.png", b"no image", "image/png")}
    first, second = ask(served, PREDICT, files=files, data={"top_k": "1"}).json()["results"]
    assert "classes" in first
    assert "error" in second


def test_one_version_answers_as_described(served: Served) -> None:
    ask(served, "/predictions/{model}/{version}", data=SEVEN.read_bytes(), headers=OCTETS)


def test_a_body_above_the_limit_of_torchserve_is_answered_as_described(served: Served) -> None:
    assert ask(served, PREDICT, data=bytes(27_000_000), headers=OCTETS).status_code == 413


def test_ping_answers_as_described(served: Served) -> None:
    response = served.request("GET", "/ping")
    API.check_answer("/ping", response, "get")
    described = API.document["paths"]["/ping"]["get"]["responses"]["200"]
    assert response.json() == described["content"]["application/json"]["example"]
