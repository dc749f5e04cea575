import struct
from pathlib import Path
from typing import Any

import orjson
import pytest
from conftest import TinyModel
from fakes import encode_image, noise_image

from mar_tools.building.packing import build_archive
from mar_tools.command_line import HANDLERS
from mar_tools.load_testing.answers import Expected, Found, expect_answers
from mar_tools.load_testing.targets import REQUEST_ENCODERS, Encoding, decode_answer, encode_request, prepare_requests
from mar_tools.verification.observations import load_handler
from vision_serving.answers.responses import encode_response
from vision_serving.errors import ConfigError
from vision_serving.requests.payload import Payload

CAT_OR_DOG = Expected((Found(0.50, "cat", 0), Found(0.49, "dog", 1), Found(0.01, "bird", 2)))
CLEARLY_CAT = Expected((Found(0.80, "cat", 0), Found(0.15, "dog", 1)))
PAIR = Expected((Found(0.9, "cat", 0, (0, 0, 10, 10)), Found(0.6, "dog", 1, (20, 0, 30, 10))), score_threshold=0.5)
FAINT = Expected((Found(0.52, "cat", 0, (0, 0, 10, 10)),), score_threshold=0.5)


def classes(*rows: tuple[int, str, float]) -> dict[str, Any]:
    return {"classes": [{"class_id": number, "label": label, "score": score} for number, label, score in rows]}


def boxes(*rows: tuple[int, float, list[float]]) -> dict[str, Any]:
    labels = ["cat", "dog", "bird"]
    return {
        "detections": [
            {"class_id": number, "label": labels[number], "score": score, "box": box} for number, score, box in rows
        ]
    }


CAT_BOX, DOG_BOX = (0, 0.9, [0.0, 0.0, 10.0, 10.0]), (1, 0.6, [20.0, 0.0, 30.0, 10.0])


@pytest.mark.parametrize(
    ("answer", "same"),
    [
        (classes((1, "dog", 0.7), (0, "cat", 0.2)), True),
        (classes((0, "cat", 0.8)), False),
        (classes((0, "cat", 0.8), (1, "dog", 0.1), (2, "bird", 0.1)), False),
        ({"cat": 0.8, "dog": 0.15}, True),
        ({"cat": 0.8, "bird": 0.15}, False),
        ({"code": 500}, False),
    ],
    ids=["in any order", "one is missing", "one too many", "TorchServe's own", "another one", "no answer"],
)
def test_the_same_classes_are_all_and_no_others(answer: Any, same: bool) -> None:
    assert CLEARLY_CAT.has_same_classes(orjson.dumps(answer)) is same


@pytest.mark.parametrize(
    ("expected", "answer", "right"),
    [
        pytest.param(CLEARLY_CAT, classes((0, "cat", 0.81), (1, "dog", 0.14)), True, id="the score moved a little"),
        pytest.param(CLEARLY_CAT, classes((0, "cat", 0.77)), False, id="the score moved much"),
        pytest.param(CLEARLY_CAT, classes((1, "dog", 0.80)), False, id="another class"),
        pytest.param(CAT_OR_DOG, classes((1, "dog", 0.50), (0, "cat", 0.49)), True, id="a tie changed places"),
        pytest.param(CAT_OR_DOG, classes((2, "bird", 0.50)), False, id="not one of the tied"),
        pytest.param(CLEARLY_CAT, classes(), False, id="no class"),
        pytest.param(CLEARLY_CAT, {"cat": 0.8, "dog": 0.15}, True, id="TorchServe's own form"),
        pytest.param(CLEARLY_CAT, {"dog": 0.8, "cat": 0.15}, False, id="TorchServe's own form, wrong"),
        pytest.param(CLEARLY_CAT, {"code": 500, "type": "InferenceError", "message": "no"}, False, id="an error"),
        pytest.param(PAIR, boxes(CAT_BOX, DOG_BOX), True, id="the same boxes"),
        pytest.param(PAIR, boxes(DOG_BOX, CAT_BOX), True, id="in another order"),
        pytest.param(PAIR, boxes((0, 0.9, [0.0, 0.0, 10.0, 9.5]), DOG_BOX), True, id="a box moved a little"),
        pytest.param(PAIR, boxes((0, 0.9, [0.0, 0.0, 10.0, 8.5]), DOG_BOX), False, id="a box moved much"),
        pytest.param(PAIR, boxes((1, 0.9, [0.0, 0.0, 10.0, 10.0]), DOG_BOX), False, id="a box of another class"),
        pytest.param(PAIR, boxes(CAT_BOX), False, id="a box is missing"),
        pytest.param(PAIR, boxes(CAT_BOX, CAT_BOX, DOG_BOX), False, id="a box twice"),
        pytest.param(
            PAIR,
            boxes(CAT_BOX, DOG_BOX, (2, 0.52, [50.0, 50.0, 60.0, 60.0])),
            True,
            id="one more that is not confident",
        ),
        pytest.param(
            PAIR,
            [{"cat": [0, 0, 10, 10], "score": 0.9}, {"dog": [20, 0, 30, 10], "score": 0.6}],
            True,
            id="TorchServe's own boxes",
        ),
        pytest.param(PAIR, [{"cat": [0, 0, 10, 10], "score": 0.9}], False, id="TorchServe's own boxes, one missing"),
        pytest.param(FAINT, boxes(), True, id="a faint box may be missing"),
        pytest.param(FAINT, boxes(DOG_BOX), False, id="a confident box that nobody expected"),
    ],
)
def test_what_counts_as_right(expected: Expected, answer: Any, right: bool) -> None:
    assert expected.matches(orjson.dumps(answer)) is right


@pytest.mark.parametrize(
    "body", [b"", b"no JSON", b"5", b'{"classes": 5}', b'{"classes": [{"label": "cat"}]}', b"[[]]"]
)
def test_a_body_that_is_no_answer_is_not_right(body: bytes) -> None:
    assert not CLEARLY_CAT.matches(body)
    assert not PAIR.matches(body)


@pytest.mark.parametrize("model", ["tiny_classifier", "tiny_detector"])
def test_an_export_gives_answers_that_another_backend_matches_and_other_images_do_not(
    request: pytest.FixtureRequest, model: str
) -> None:
    tiny: TinyModel = request.getfixturevalue(model)
    images = [encode_image(noise_image(seed, (40, 30)) // 4 * (1 + 3 * (seed % 2))) for seed in range(4)]
    expected = expect_answers(tiny.folders["openvino"], images)
    handler = load_handler(tiny.folders["torchscript"])
    outcomes = handler.predict([Payload(images=(image,)) for image in images])
    bodies = [encode_response(outcome).body for outcome in outcomes]
    assert [answer.matches(body) for answer, body in zip(expected, bodies, strict=True)] == [True] * 4
    assert not expected[0].matches(
        orjson.dumps(classes((9, "fish", 0.99)) if model == "tiny_classifier" else boxes(CAT_BOX))
    )


def test_an_archive_gives_the_answers_of_its_export(tiny_classifier: TinyModel, tmp_path: Path) -> None:
    images = [encode_image(noise_image(seed, (40, 30))) for seed in range(2)]
    archive = build_archive(tiny_classifier.folders["openvino"], HANDLERS, tmp_path)
    assert expect_answers(archive, images) == expect_answers(tiny_classifier.folders["openvino"], images)


def test_an_image_that_cannot_be_answered_is_refused(tiny_classifier: TinyModel) -> None:
    with pytest.raises(ConfigError, match=r"no answer to image 0: .*ImageDecodeError"):
        expect_answers(tiny_classifier.folders["openvino"], [b"not an image"])


BODY = orjson.dumps(classes((0, "café", 0.8)))


def test_a_raw_request_is_the_image_and_its_answer_our_json() -> None:
    assert encode_request("raw", b"jpeg") == ({"Content-Type": "image/jpeg"}, b"jpeg")
    assert decode_answer("raw", BODY) == BODY


def test_a_binary_request_says_where_its_tensor_begins() -> None:
    headers, body = encode_request("v2_binary", b"jpeg")
    length = int(headers["Inference-Header-Content-Length"])
    (tensor,) = orjson.loads(body[:length])["inputs"]
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("image", "BYTES", [1, 1])
    assert body[length:] == struct.pack("<I", 4) + b"jpeg"
    assert tensor["parameters"]["binary_data_size"] == len(body) - length


@pytest.mark.parametrize("output", ["binary", "json"])
@pytest.mark.parametrize("encoding", ["v2_binary", "v2_json"])
def test_our_json_comes_back_out_of_an_open_inference_answer(encoding: Encoding, output: str) -> None:
    tensor = struct.pack("<I", len(BODY)) + BODY
    entry: dict[str, Any] = {"name": "answer", "datatype": "BYTES", "shape": [1, 1]}
    if output == "json":
        assert decode_answer(encoding, orjson.dumps({"outputs": [{**entry, "data": [BODY.decode()]}]})) == BODY
    else:
        header = orjson.dumps({"outputs": [{**entry, "parameters": {"binary_data_size": len(tensor)}}]})
        assert decode_answer(encoding, header + tensor) == BODY


@pytest.mark.parametrize("encoding", REQUEST_ENCODERS)
@pytest.mark.parametrize(
    "body", [b"", b"5", b"{}", b'{"outputs": []}', b'{"outputs": [{}]}', b'{"outputs": [{"data": []}]}']
)
def test_an_answer_of_another_form_is_a_wrong_one(encoding: Encoding, body: bytes) -> None:
    (request,) = prepare_requests([b"jpeg"], encoding, [CLEARLY_CAT])
    assert not request.is_right(body)
    (unchecked,) = prepare_requests([b"jpeg"], encoding)
    assert unchecked.is_right(body)
