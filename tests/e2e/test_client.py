"""The Python client against a real server: every kind of input, errors in their places, tokens."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL.Image
import pytest

from vision_client import (
    AuthorizationError,
    Classification,
    Client,
    Detections,
    InvalidOptionError,
    ModelNotFoundError,
    PredictionError,
)

from .conftest import EXAMPLES, Service, scene_path

SEVEN = EXAMPLES / "digits_classification" / "samples" / "seven.png"
HELDOUT = EXAMPLES / "digits_classification" / "heldout"
GARBAGE = b"this is not an image"

INPUTS: dict[str, Callable[[Path], Any]] = {
    "path": lambda path: path,
    "str": str,
    "bytes": Path.read_bytes,
    "file": lambda path: path.open("rb"),
    "picture": PIL.Image.open,
    "array": lambda path: np.asarray(PIL.Image.open(path).convert("RGB")),
}


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    key_file = service.folder / "key_file.json"
    with Client(service.url, token=key_file, timeout_s=30) as client:
        yield client


@pytest.mark.parametrize("make_input", INPUTS.values(), ids=INPUTS)
def test_a_classifier_gives_one_answer_for_every_kind_of_input(
    client: Client, service: Service, make_input: Callable[[Path], Any]
) -> None:
    raw = service.post("digits", SEVEN.read_bytes(), {"Content-Type": "image/png"}).json()
    answer = client.predict("digits", make_input(SEVEN))
    assert isinstance(answer, Classification)
    assert answer.top.label == "7"
    assert [(c.class_id, c.label, c.score) for c in answer.classes] == [tuple(c.values()) for c in raw["classes"]]
    assert answer.to_dict() == raw
    assert answer.extra == {}


@pytest.mark.parametrize("make_input", INPUTS.values(), ids=INPUTS)
def test_a_detector_gives_one_answer_for_every_kind_of_input(
    client: Client, service: Service, scene_truth: Any, make_input: Callable[[Path], Any]
) -> None:
    raw = service.post("digits_detection", scene_path().read_bytes(), {"Content-Type": "image/jpeg"}).json()
    answer = client.predict("digits_detection", make_input(scene_path()))
    assert isinstance(answer, Detections)
    assert sorted(found.label for found in answer.detections) == sorted(scene_truth["labels"])
    assert (answer.image.width, answer.image.height) == PIL.Image.open(scene_path()).size
    assert [list(found.box) for found in answer.detections] == [found["box"] for found in raw["detections"]]
    assert answer.to_dict() == raw
    assert "<img" in answer._repr_html_()


def test_a_picture_opened_by_pillow_is_turned_as_its_file_is(client: Client) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    PIL.Image.open(scene_path()).transpose(PIL.Image.Transpose.ROTATE_90).save(buffer, "JPEG", exif=exif)
    answers = client.predict("digits_detection", [buffer.getvalue(), PIL.Image.open(buffer)])
    assert isinstance(answers[0], Detections)
    assert answers[0] == answers[1]


def test_an_explanation_is_of_the_best_class_and_shows_itself(client: Client) -> None:
    explained = client.explain("digits", SEVEN, cells=4)
    assert (explained.label, explained.heat_map.height, explained.heat_map.width) == ("7", 4, 4)
    assert "<img" in explained._repr_html_()
    with pytest.raises(PredictionError, match="501"):
        client.explain("digits_detection", scene_path())


def test_options_reach_the_model(client: Client) -> None:
    answers = client.predict("digits", [SEVEN, SEVEN], top_k=3, model_version="1.0")
    assert [len(answer.classes) for answer in answers if isinstance(answer, Classification)] == [3, 3]
    found = client.predict("digits_detection", scene_path(), class_filter=["4", 5, 6], score_threshold=0.1)
    assert isinstance(found, Detections)
    assert {entry.label for entry in found.detections} <= {"4", "5", "6"}


def test_a_bad_image_among_good_ones_is_an_error_in_its_place(client: Client) -> None:
    first, second, third, last = client.predict("digits", [SEVEN, GARBAGE, "no/such/file.png", SEVEN])
    assert isinstance(first, Classification)
    assert first == last
    assert isinstance(second, PredictionError)
    assert (second.code, second.type) == (400, "ImageDecodeError")
    assert isinstance(third, PredictionError)
    assert "no/such/file.png" in str(third)


def test_many_files_over_few_connections(service: Service) -> None:
    files = sorted(HELDOUT.glob("*/*.jpg"))
    with Client(service.url, service.token, concurrency=16) as client:
        answers = client.predict("digits", files)
    right = [isinstance(a, Classification) and a.top.label == f.parent.name for a, f in zip(answers, files)]
    assert len(right) == len(files) == 200
    assert sum(right) / len(right) > 0.97  # the example's own accuracy on these is 0.983


def test_a_bad_image_alone_is_raised(client: Client) -> None:
    with pytest.raises(PredictionError, match="400 ImageDecodeError: not an image"):
        client.predict("digits", GARBAGE)


@pytest.mark.parametrize(("token", "message"), [(None, "asks for a token"), ("wrong", "wrong or has expired")])
def test_a_wrong_token_says_what_to_do(service: Service, token: str | None, message: str) -> None:
    with Client(service.url, token) as client:
        with pytest.raises(AuthorizationError, match=message) as caught:
            client.predict("digits", [SEVEN, SEVEN])
        assert caught.value.code == 400
        with pytest.raises(AuthorizationError, match=message):
            client.health()


def test_a_renewed_key_file_is_read_again(client: Client, service: Service) -> None:
    client.predict("digits", SEVEN)
    service.server.client.renew_token("inference")
    answers = client.predict("digits", [SEVEN] * 10)
    assert all(isinstance(answer, Classification) for answer in answers)


@pytest.mark.parametrize(
    ("model", "version", "message"),
    [("no_such_model", None, "no_such_model"), ("digits", "9.9", "9.9")],
    ids=["model", "version"],
)
def test_an_unknown_model_says_what_to_do(client: Client, model: str, version: str | None, message: str) -> None:
    with pytest.raises(ModelNotFoundError, match=rf"404 .*{message}.*manage_models.py list"):
        client.predict(model, [SEVEN, SEVEN], model_version=version)


def test_an_unknown_option_names_the_valid_ones(client: Client) -> None:
    with pytest.raises(InvalidOptionError, match="top_k"):
        client.predict("digits", SEVEN, topk=3)


def test_a_file_above_the_limit_is_one_error_among_good_ones(client: Client) -> None:
    answers = client.predict("digits", [SEVEN, bytes(27_000_000), SEVEN])
    assert isinstance(answers[0], Classification)
    assert isinstance(answers[1], PredictionError)
    assert answers[1].code == 413
    assert answers[0] == answers[2]


def test_a_healthy_server_says_so(client: Client) -> None:
    assert client.health() == "Healthy"


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_an_annotated_picture_is_the_scene_with_something_drawn_on_it(
    client: Client, kind: Literal["png", "jpeg"]
) -> None:
    scene = PIL.Image.open(scene_path()).convert("RGB")
    annotated = PIL.Image.open(io.BytesIO(client.annotate("digits_detection", scene, format=kind)))
    assert annotated.format == kind.upper()
    enlarged = np.asarray(scene.resize(annotated.size), int)  # the server enlarges small pictures, for legible labels
    differing = np.any(np.abs(np.asarray(annotated.convert("RGB"), int) - enlarged) > 64, axis=2)
    assert 0 < differing.mean() < 0.5


def test_a_picture_of_what_is_no_image_is_an_error(client: Client) -> None:
    with pytest.raises(PredictionError, match="400 ImageDecodeError: not an image"):
        client.annotate("digits", GARBAGE)
