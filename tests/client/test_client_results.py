"""Typed answers: what is known, what is not yet, and that they are those of the server."""

import dataclasses
from typing import Any

import orjson
import pytest

import vision_client
import vision_serving.predictions as served
from vision_client import Classification, ClassScore, Detection, Detections, Embedding, ImageSize
from vision_client.results import read_answer

DETECTIONS: dict[str, Any] = {
    "detections": [{"class_id": 1, "label": "person", "score": 0.98, "box": [1, 2.5, 3, 4]}],
    "image": {"width": 640, "height": 427},
}


def test_a_classification_is_read() -> None:
    document = {"classes": [{"class_id": 7, "label": "7", "score": 0.9}, {"class_id": 9, "label": "9", "score": 0.1}]}
    answer = read_answer(orjson.dumps(document))
    assert answer == Classification((ClassScore(7, "7", 0.9), ClassScore(9, "9", 0.1)))
    assert isinstance(answer, Classification)
    assert answer.top == ClassScore(7, "7", 0.9)
    assert hash(answer) == hash(read_answer(orjson.dumps(document)))


def test_detections_are_read() -> None:
    answer = read_answer(orjson.dumps(DETECTIONS))
    assert answer == Detections((Detection(1, "person", 0.98, (1.0, 2.5, 3.0, 4.0)),), ImageSize(640, 427))


def test_an_embedding_is_read() -> None:
    assert read_answer(b'{"embedding": [0.25, -1, 3]}') == Embedding((0.25, -1.0, 3.0))


def test_nothing_found_is_an_answer() -> None:
    answer = read_answer(orjson.dumps({**DETECTIONS, "detections": []}))
    assert answer == Detections((), ImageSize(640, 427))


def test_fields_of_a_later_server_are_kept() -> None:
    document = {**DETECTIONS, "tiles": 4}
    document["detections"] = [{**DETECTIONS["detections"][0], "mask": "abc"}]
    answer = read_answer(orjson.dumps(document))
    assert isinstance(answer, Detections)
    assert answer.extra == {"tiles": 4}
    assert answer.detections[0].extra == {"mask": "abc"}


WIDEST = {"Detection": "OrientedDetection"}  # what has all that the client knows by name


@pytest.mark.parametrize("name", ["ClassScore", "Classification", "Detection", "Detections", "Embedding", "ImageSize"])
def test_what_a_result_holds_is_what_the_server_sends(name: str) -> None:
    ours = {field.name for field in dataclasses.fields(getattr(vision_client, name))} - {"extra"}
    assert ours <= {field.name for field in dataclasses.fields(getattr(served, WIDEST.get(name, name)))}


def test_a_result_cannot_be_changed() -> None:
    answer = read_answer(orjson.dumps(DETECTIONS))
    with pytest.raises(dataclasses.FrozenInstanceError):
        answer.image = None  # type: ignore[attr-defined]
