"""Entry file of an archive whose model gives answers that would end a worker: a request asks for one by its `top_k`.

Everything else is answered as by the classifier that it extends.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from image_classification import ImageClassificationHandler
from vision_serving.answers.responses import ModelIdentity, Response
from vision_serving.errors import RequestError
from vision_serving.options import ClassificationOptions, Options
from vision_serving.pictures.resizing import ImageBatch
from vision_serving.predictions import Classification, ClassScore, Prediction
from vision_serving.timings import StageTimings

HUGE = 30_000_000  # characters: more than max_response_size
SURROGATE = "\ud800"  # which UTF-8 cannot carry


def answer_with(label: Any = "a", score: Any = 0.5, class_id: Any = 0) -> Classification:
    return Classification((ClassScore(class_id, label, score),))


def holding_itself() -> list[Any]:
    endless: list[Any] = []
    endless.append(endless)
    return endless


def fail_with(status: Any, message: str) -> Prediction:
    error = RequestError(message)
    error.status = status
    raise error


# top_k -> what the model gives instead.
ANSWERS: dict[int, Callable[[], Any]] = {
    901: lambda: answer_with(score=float("nan")),
    902: lambda: answer_with(score=float("inf")),
    903: lambda: answer_with(label=SURROGATE),
    904: lambda: answer_with(label="x" * HUGE),
    905: lambda: answer_with(label=holding_itself()),
    906: lambda: answer_with(label=object()),
    907: lambda: answer_with(class_id=2**80),
    908: lambda: answer_with(label={SURROGATE: b"bytes", 5: {1, 2}}),
    909: lambda: None,
    910: lambda: fail_with(299, "a status of no phrase"),
    911: lambda: fail_with(99999, "a status of no meaning"),
    912: lambda: fail_with("200 OK\r\nX-Injected: yes", "a status that is a text"),
    913: lambda: fail_with(400, f"a message with a break\r\n\r\n, a {SURROGATE} and {'x' * HUGE}"),
}
ODD_HEADERS = 914
HEADERS: dict[Any, Any] = {"X-Number": 5, "X-Nothing": None, "X-Break": "a\r\nX-Injected: yes", "X-Wide": SURROGATE}


class HostileClassificationHandler(ImageClassificationHandler):
    """The classifier, until a request asks for one of ANSWERS, or for ODD_HEADERS on the whole batch."""

    has_odd_headers = False

    def postprocess(
        self, outputs: Mapping[str, Tensor], batch: ImageBatch, options: Sequence[Options]
    ) -> list[Prediction]:
        predictions: list[Any] = super().postprocess(outputs, batch, options)
        for index, option in enumerate(options):
            assert isinstance(option, ClassificationOptions)
            self.has_odd_headers = self.has_odd_headers or option.top_k == ODD_HEADERS
            if option.top_k in ANSWERS:
                predictions[index] = ANSWERS[option.top_k]()
        return predictions

    def response_headers(
        self, responses: Sequence[Response], model: ModelIdentity, timings: StageTimings
    ) -> dict[str, str]:
        odd = HEADERS if self.has_odd_headers else {}
        self.has_odd_headers = False
        return {**super().response_headers(responses, model, timings), **odd}
