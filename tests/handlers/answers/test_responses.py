import math
from typing import Any

import orjson
import pytest

from vision_serving import errors
from vision_serving.answers.responses import (
    ENCODERS,
    PHRASES,
    RESULT_KEYS,
    ModelIdentity,
    bound,
    build_error_body,
    encode_response,
    header_text,
)
from vision_serving.errors import (
    DrainingError,
    ImageDecodeError,
    InferenceError,
    InvalidOptionError,
    MalformedRequestError,
    NotAcceptableError,
    OutOfResourcesError,
    PayloadTooLargeError,
    RequestError,
    UnsupportedFormatError,
)
from vision_serving.predictions import Classification, ClassScore, Detection, Detections, ImageSize
from vision_serving.requests.contents import AnswerWishes
from vision_serving.requests.payload import IMAGE_READERS, Form
from vision_serving.results.outcome import Outcome

TABBY = Classification((ClassScore(281, "tabby", 0.83),))
TABBY_JSON = {"classes": [{"class_id": 281, "label": "tabby", "score": 0.83}]}
PERSON = Detections((Detection(1, "person", 0.98, (1.5, 2.0, 30.25, 40.0)),), ImageSize(width=640, height=427))
PERSON_JSON = {
    "detections": [{"class_id": 1, "label": "person", "score": 0.98, "box": [1.5, 2.0, 30.25, 40.0]}],
    "image": {"width": 640, "height": 427},
}
BROKEN = ImageDecodeError("the image is damaged or incomplete")
BROKEN_JSON = {"code": 400, "type": "ImageDecodeError", "message": "the image is damaged or incomplete"}
BROKEN_OF_PROTOCOLS = {"error": "the image is damaged or incomplete", "code": 400, "type": "ImageDecodeError"}
MODEL = ModelIdentity("cats", "1.5")


@pytest.mark.parametrize(
    ("outcome", "status", "body"),
    [
        (Outcome((TABBY,)), 200, TABBY_JSON),
        (Outcome((PERSON,)), 200, PERSON_JSON),
        (Outcome((Detections((), ImageSize(3, 2)),)), 200, {"detections": [], "image": {"width": 3, "height": 2}}),
        (Outcome((BROKEN,)), 400, BROKEN_JSON),
        (Outcome((TABBY,), Form.MULTIPART), 200, {"results": [TABBY_JSON]}),
        (Outcome((TABBY, PERSON), Form.MULTIPART), 200, {"results": [TABBY_JSON, PERSON_JSON]}),
        (Outcome((TABBY,), Form.KSERVE_V1), 200, {"predictions": [TABBY_JSON]}),
        (Outcome((BROKEN, TABBY), Form.KSERVE_V1), 200, {"predictions": [{"error": BROKEN_JSON}, TABBY_JSON]}),
        (Outcome((TABBY, BROKEN), Form.MULTIPART), 200, {"results": [TABBY_JSON, {"error": BROKEN_JSON}]}),
        (Outcome((BROKEN,), Form.MULTIPART), 400, BROKEN_JSON),
        (Outcome((BROKEN,), Form.KSERVE_V1), 400, BROKEN_OF_PROTOCOLS),
        (Outcome((BROKEN,), Form.OPEN_INFERENCE), 400, BROKEN_OF_PROTOCOLS),
    ],
    ids=["classes", "detections", "no detections", "error", "one part", "two parts", "one instance",
         "a failed instance", "a failed part", "only failed", "only failed, V1", "only failed, V2"],
)  # fmt: skip
def test_the_answer_has_the_form_of_the_request(outcome: Outcome, status: int, body: object) -> None:
    response = encode_response(outcome)
    assert response.status == status
    assert orjson.loads(response.body) == body


def test_open_inference_gets_its_id_the_model_and_tensors() -> None:
    response = encode_response(Outcome((TABBY, BROKEN), Form.OPEN_INFERENCE, AnswerWishes("42")), MODEL)
    answer = orjson.loads(response.body)
    predictions, class_ids, scores, labels = answer.pop("outputs")
    assert answer == {"model_name": "cats", "model_version": "1.5", "id": "42"}
    assert [orjson.loads(text) for text in predictions["data"]] == [TABBY_JSON, {"error": BROKEN_JSON}]
    assert (class_ids["shape"], class_ids["data"]) == ([2, 1], [281, -1])
    assert (scores["data"], labels["data"]) == ([0.83, 0.0], ["tabby", ""])


def test_open_inference_without_an_id_gets_none() -> None:
    assert list(orjson.loads(encode_response(Outcome((TABBY,), Form.OPEN_INFERENCE), MODEL).body)) == [
        "model_name",
        "model_version",
        "outputs",
    ]


def test_open_inference_gets_the_outputs_that_it_names_in_their_order() -> None:
    wishes = AnswerWishes(outputs={"scores": False, "predictions": False})
    answer = orjson.loads(encode_response(Outcome((PERSON,), Form.OPEN_INFERENCE, wishes), MODEL).body)
    assert [output["name"] for output in answer["outputs"]] == ["scores", "predictions"]


def test_an_output_that_is_not_there_is_refused_with_those_that_are() -> None:
    wishes = AnswerWishes(outputs={"scores": False, "logits": True})
    response = encode_response(Outcome((TABBY,), Form.OPEN_INFERENCE, wishes), MODEL)
    assert response.status == 400
    assert "unknown output 'logits'; expected one of ['predictions'," in orjson.loads(response.body)["error"]


def test_binary_outputs_follow_the_json_whose_length_a_header_says() -> None:
    wishes = AnswerWishes(outputs={"class_ids": True, "labels": False})
    response = encode_response(Outcome((TABBY,), Form.OPEN_INFERENCE, wishes), MODEL)
    length = int(response.headers["Inference-Header-Content-Length"])
    class_ids, labels = orjson.loads(response.body[:length])["outputs"]
    assert response.content_type == "application/octet-stream"
    assert response.body[length:] == (281).to_bytes(8, "little")
    assert class_ids["parameters"] == {"binary_data_size": 8}
    assert labels["data"] == ["tabby"]


def test_where_there_is_no_status_failed_images_are_entries_of_the_tensors() -> None:
    wishes = AnswerWishes(id="", has_status=False)
    response = encode_response(Outcome((BROKEN, BROKEN), Form.OPEN_INFERENCE, wishes), MODEL)
    (predictions,) = orjson.loads(response.body)["outputs"]
    assert response.status == 200
    assert [orjson.loads(text) for text in predictions["data"]] == [{"error": BROKEN_JSON}] * 2


def test_an_id_that_utf8_cannot_carry_is_replaced() -> None:
    response = encode_response(Outcome((TABBY,), Form.OPEN_INFERENCE, AnswerWishes("a\udcff")), MODEL)
    assert orjson.loads(response.body)["id"] == "a?"


def test_keys_come_in_the_order_of_the_contract() -> None:
    assert list(orjson.loads(encode_response(Outcome((BROKEN,))).body)) == ["code", "type", "message"]
    assert list(orjson.loads(encode_response(Outcome((PERSON,))).body)["detections"][0]) == list(
        PERSON_JSON["detections"][0]  # type: ignore[index]
    )


def test_when_all_images_fail_the_first_error_decides_and_the_count_is_said() -> None:
    response = encode_response(Outcome((PayloadTooLargeError("too large"), BROKEN), Form.MULTIPART))
    assert response.status == 413
    assert orjson.loads(response.body)["message"] == "all 2 images failed; the first: too large"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MalformedRequestError, 400),
        (ImageDecodeError, 400),
        (NotAcceptableError, 406),
        (PayloadTooLargeError, 413),
        (UnsupportedFormatError, 415),
        (InvalidOptionError, 422),
        (InferenceError, 500),
        (DrainingError, 503),
        (OutOfResourcesError, 507),
    ],
)
def test_every_error_has_the_status_of_the_contract(error: type[RequestError], status: int) -> None:
    response = encode_response(Outcome((error("why"),)))
    assert response.status == status
    assert orjson.loads(response.body) == {"code": status, "type": error.__name__, "message": "why"}


@pytest.mark.parametrize("status", [299, 99999, "200 OK\r\nX-Injected: yes", None])
def test_a_status_that_is_none_of_the_contract_is_a_fault_of_the_server(status: Any) -> None:
    error = RequestError("why")
    error.status = status
    response = encode_response(Outcome((error,)))
    assert (response.status, response.phrase) == (500, "Internal Server Error")
    assert orjson.loads(response.body) == {"code": 500, "type": "InferenceError", "message": "why"}


@pytest.mark.parametrize(
    ("value", "text"), [("2.0", "2.0"), (5, "5"), (None, "None"), ("a\r\nb: c", "a  b: c"), ("\ud800\xe9", "??")]
)
def test_a_header_is_text_that_can_be_sent(value: object, text: str) -> None:
    assert header_text(value) == text


def test_every_error_of_the_tree_has_a_phrase_in_plain_ascii() -> None:
    statuses = {
        kind.status for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RequestError)
    }
    assert statuses | {200} == PHRASES.keys()
    assert all(phrase.isascii() and phrase.isprintable() for phrase in PHRASES.values())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("x" * 100_000, id="long"),
        pytest.param("\U0001f600" * 5000, id="four-byte letters"),
        pytest.param("\udcff" * 5000, id="lone surrogates"),
        pytest.param('"' * 5000, id="quotes"),
        pytest.param("\\" * 5000, id="backslashes"),
        pytest.param("\x00" * 5000, id="control characters"),
        pytest.param("line\nline", id="lines"),
    ],
)
@pytest.mark.parametrize("count", [1, 64])
@pytest.mark.parametrize("form", Form)
def test_an_error_body_is_valid_json_under_2_kb(text: str, count: int, form: Form) -> None:
    response = encode_response(Outcome((InvalidOptionError(text),) * count, form))
    assert len(response.body) < 2048
    assert orjson.loads(response.body)["code"] == 422
    response.body.decode("utf-8")


def test_a_lone_surrogate_in_a_message_is_replaced() -> None:
    assert build_error_body(InvalidOptionError("a\udcffb"))["message"] == "a?b"


def test_a_number_that_is_not_finite_never_makes_invalid_json() -> None:
    body = encode_response(Outcome((Classification((ClassScore(0, "x", math.nan),)),))).body
    assert orjson.loads(body)["classes"][0]["score"] is None


def test_an_answer_that_torchserve_would_not_take_is_an_error_of_its_request() -> None:
    outcome = Outcome((TABBY, TABBY), Form.KSERVE_V1)
    whole = encode_response(outcome, MODEL)
    assert bound(whole, outcome, len(whole.body)) is whole
    refused = bound(whole, outcome, len(whole.body) - 1)
    assert refused.status == 413
    assert "max_response_size" in orjson.loads(refused.body)["error"]


def test_where_all_images_failed_over_grpc_the_reasons_come_whatever_outputs_are_asked_for() -> None:
    wishes = AnswerWishes(outputs={"scores": False}, has_status=False)
    response = encode_response(Outcome((BROKEN,), Form.OPEN_INFERENCE, wishes), MODEL)
    (output,) = orjson.loads(response.body)["outputs"]
    assert orjson.loads(output["data"][0]) == {"error": BROKEN_JSON}


def test_each_form_of_a_request_has_its_reader_and_its_encoder() -> None:
    assert ENCODERS.keys() == set(Form)
    assert {form for form, encode in ENCODERS.items() if encode is ENCODERS[Form.MULTIPART]} == RESULT_KEYS.keys()
    assert IMAGE_READERS.keys() == set(Form) - {Form.RAW, Form.MULTIPART}, "the others are JSON"
