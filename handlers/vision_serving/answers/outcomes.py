"""From the results of images to the outcomes of the requests that brought them."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from vision_serving.errors import RequestError
from vision_serving.foreign_errors import to_request_error
from vision_serving.metrics import StageTimings
from vision_serving.options import Options
from vision_serving.requests.contents import Place
from vision_serving.requests.payload import Payload
from vision_serving.results.outcome import ItemResult, Outcome

Predict: TypeAlias = Callable[[Sequence[Payload], StageTimings], list[Outcome]]


def predict_each(predict: Predict, payloads: Sequence[Payload], timings: StageTimings) -> list[Outcome]:
    """The border of a request: where a batch fails in a way that no image of it should be able to, each runs alone."""
    try:
        return predict(payloads, timings)
    except Exception as error:
        if len(payloads) == 1:
            return [Outcome((to_request_error(error),), payloads[0].form, payloads[0].wishes)]
    return [outcome for payload in payloads for outcome in predict_each(predict, [payload], timings)]


def collect(
    payloads: Sequence[Payload], options: Sequence[Options | RequestError], results: Mapping[Place, ItemResult]
) -> list[Outcome]:
    """One outcome per request. The images of one that cannot be served share its error."""
    return [
        Outcome(
            (chosen,) * len(payload.images)
            if isinstance(chosen, RequestError)
            else tuple(results[request, number] for number in range(len(payload.images))),
            payload.form,
            payload.wishes,
        )
        for request, (payload, chosen) in enumerate(zip(payloads, options, strict=True))
    ]
