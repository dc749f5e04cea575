"""No score outside [0, 1] leaves a handler, whatever a model gives: every task, every path."""

import math
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
import torch
from conftest import MakeHandler
from fakes import encode_image, noise_image

from vision_serving.answers.responses import encode_response
from vision_serving.errors import RequestError
from vision_serving.predictions import Classification, ClassScore
from vision_serving.requests.payload import Payload
from vision_serving.results.outcome import Outcome
from vision_serving.worker.service import TorchServeHandler

NAN, INFINITY = math.nan, math.inf
PICTURE = encode_image(noise_image(0, (64, 64)))


def list_scores(document: Any) -> Iterator[float]:
    """Every value under a key `score`, wherever it stands in an answer."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from [value] if key == "score" else list_scores(value)
    elif isinstance(document, list):
        for value in document:
            yield from list_scores(value)


def served_scores(outcome: Outcome) -> list[float]:
    """As JSON has them: NaN would be null there."""
    scores = list(list_scores(orjson.loads(encode_response(outcome).body)))
    assert all(isinstance(score, float) and 0 <= score <= 1 for score in scores), scores
    return scores


def giving(handler: TorchServeHandler, monkeypatch: pytest.MonkeyPatch, **outputs: torch.Tensor) -> TorchServeHandler:
    def infer(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: values.expand(len(pixels), *values.shape[1:]) for name, values in outputs.items()}

    monkeypatch.setattr(handler.backend, "infer", infer)
    return handler


@pytest.mark.parametrize(
    "options", [{}, {"nms": "none"}, {"nms": "soft"}, {"tile_size": "32"}, {"box_format": "xywhn"}], ids=str
)
@pytest.mark.parametrize("padded", [False, True], ids=["dense", "padded"])
@pytest.mark.parametrize(
    ("score", "served"),
    [(NAN, None), (INFINITY, None), (-INFINITY, None), (1.2, None), (300.0, None), (1.004, [1.0]), (1.0, [1.0]),
     (-0.5, []), (-1.0, [])],
)  # fmt: skip
def test_scores_of_boxes(
    make_handler: MakeHandler,
    monkeypatch: pytest.MonkeyPatch,
    score: float,
    served: list[float] | None,
    padded: bool,
    options: dict[str, str],
) -> None:
    outputs = {"boxes": torch.tensor([[[2.0, 2.0, 9.0, 9.0]]]), "scores": torch.tensor([[[score, 0.0, 0.0]]])}
    if padded:
        outputs |= {"scores": torch.tensor([[score]]), "class_ids": torch.tensor([[0]])}
    handler = giving(make_handler("detection"), monkeypatch, **outputs)
    (outcome,) = handler.predict([Payload(images=(PICTURE,), options={"score_threshold": "0", **options})])
    scores = served_scores(outcome)
    if served is None:
        assert isinstance(outcome.items[0], RequestError)
        assert outcome.items[0].status == 500
    else:
        assert set(scores) == set(served)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY, 1e38, -1e38, 1.5])
@pytest.mark.parametrize("explained", [False, True], ids=["predicted", "explained"])
def test_scores_of_classes(
    make_handler: MakeHandler, monkeypatch: pytest.MonkeyPatch, activation: str, value: float, explained: bool
) -> None:
    handler = make_handler("classification", activation=activation)
    giving(handler, monkeypatch, logits=torch.tensor([[value, 0.5, 0.2]]))
    payload = Payload(images=(PICTURE,), options={"cells": "2"} if explained else {})
    (outcome,) = (handler.explain if explained else handler.predict)([payload])
    assert served_scores(outcome) or isinstance(outcome.items[0], RequestError)
    if math.isnan(value):
        assert isinstance(outcome.items[0], RequestError)


@pytest.mark.parametrize("score", [NAN, 1.5, -0.1])
def test_a_task_that_makes_such_a_score_itself_is_refused_at_the_last_door(
    make_handler: MakeHandler, monkeypatch: pytest.MonkeyPatch, score: float
) -> None:
    handler = make_handler("classification")
    answer = Classification((ClassScore(0, "red", 0.5), ClassScore(1, "green", score)))
    monkeypatch.setattr(handler, "postprocess", lambda outputs, batch, options: [answer] * len(options))
    (outcome,) = handler.predict([Payload(images=(PICTURE,), options={})])
    assert isinstance(outcome.items[0], RequestError)
    assert served_scores(outcome) == []
