"""Classifiers with independent scores, and embeddings: what their entry files make of outputs."""

import base64
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from conftest import MakeHandler
from fakes import COLOURS, NOT_FINITE, RED, new_context, png

from vision_serving.errors import InferenceError
from vision_serving.predictions import Classification, Embedding
from vision_serving.requests.payload import Payload


def one(image: bytes, **options: Any) -> Payload:
    return Payload(images=(image,), options=options)


LOGITS_OF_RED = (4.0, 0.0, 0.0)  # of the colour classifier, for RED


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({}, ["red"]),
        ({"score_threshold": 0.4}, ["red", "green", "blue"]),
        ({"score_threshold": 0.4, "top_k": 2}, ["red", "green"]),
        ({"class_thresholds": "blue:0.3"}, ["red", "blue"]),
        ({"class_thresholds": {"0": 0.99}}, []),
    ],
    ids=["above a half", "threshold", "at most", "of a class", "none"],
)
def test_independent_scores_give_each_class_above_its_threshold(
    make_handler: MakeHandler, options: dict[str, Any], labels: list[str]
) -> None:
    handler = make_handler("classification", activation="sigmoid")
    item = handler.predict([one(png(RED), **options)])[0].items[0]
    assert isinstance(item, Classification)
    assert [entry.label for entry in item.classes] == labels
    expected = dict(zip(COLOURS, torch.tensor(LOGITS_OF_RED).sigmoid().tolist(), strict=True))
    assert [entry.score for entry in item.classes] == pytest.approx([expected[label] for label in labels], abs=1e-6)


def test_independent_scores_that_are_not_finite_are_an_error(make_handler: MakeHandler) -> None:
    item = make_handler("classification", activation="sigmoid").predict([one(png(NOT_FINITE))])[0].items[0]
    assert isinstance(item, InferenceError)


@pytest.mark.parametrize(
    ("options", "vector"), [({}, (200, 50, 100)), ({"normalize": "true"}, (0.8728716, 0.2182179, 0.4364358))]
)
def test_an_embedding_is_the_vector_as_it_is_or_normalised(
    make_handler: MakeHandler, options: dict[str, str], vector: tuple[float, ...]
) -> None:
    item = make_handler("embedding").predict([one(png((200, 50, 100)), **options)])[0].items[0]
    assert isinstance(item, Embedding)
    assert item.embedding == pytest.approx(vector, abs=1e-6)


def test_an_embedding_is_asked_for_in_every_form(make_handler: MakeHandler) -> None:
    """No picture can be drawn of it, so the answer to `Accept: image/png` is JSON too."""
    handler, encoded = make_handler("embedding"), base64.b64encode(png(RED)).decode()
    v2 = {"inputs": [{"name": "a", "datatype": "BYTES", "shape": [2], "data": [encoded, "bm8gaW1hZ2U="]}]}
    rows: list[dict[str, Any]] = [{"body": png(RED)}, {"body": {"instances": [{"b64": encoded}]}}, {"body": v2}]
    context = new_context(Path(), [{"Accept": "image/png"}, {}, {}])
    found = [orjson.loads(body) for body in handler.handle(rows, context)]
    assert found[0] == {"embedding": [200.0, 0.0, 0.0]}
    assert found[1] == {"predictions": [{"embedding": [200.0, 0.0, 0.0]}]}
    [_, tensor] = found[2]["outputs"]
    expected = {"name": "embedding", "datatype": "FP32", "shape": [2, 3], "data": [200.0, 0.0, 0.0, 0.0, 0.0, 0.0]}
    assert tensor == expected
