"""What speaks for a class in the images of a batch: a heat map for each of them, or an error of its own."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vision_serving.attribution import Attribution, Subject, attribute
from vision_serving.backends.base import Backend, DifferentiableBackend
from vision_serving.config import ExplanationOptions, HandlerConfig, ImageLimits, Method, parse_options
from vision_serving.errors import ExplanationTimeoutError, InferenceError, NotSupportedError, RequestError
from vision_serving.failures import to_request_error
from vision_serving.heat_maps import draw_explanation, to_heat_map
from vision_serving.images import decode_image, shrink_jpeg
from vision_serving.labels import find_class_id
from vision_serving.metrics import StageTimings
from vision_serving.payload import Payload
from vision_serving.predictions import Explanation, ImageSize
from vision_serving.preparation import Item, Place, Preparer, Source
from vision_serving.responses import JSON_TYPE, ItemResult, Outcome, Response, encode_response

PNG_TYPE = "image/png"
PICTURE_SIDE = 1024  # of a picture in an answer, at most
MEDIA_TYPES = {PNG_TYPE: True, "image/*": True, JSON_TYPE: False, "application/*": False, "*/*": False}


class Explainer:
    """Explains images one after the other: each costs tens of inferences, which run in batches of their own."""

    def __init__(self, backend: Backend, preparer: Preparer, labels: Sequence[str], config: HandlerConfig) -> None:
        self._backend = backend
        self._preparer = preparer
        self._labels = labels
        self._config = config

    @property
    def methods(self) -> tuple[Method, ...]:
        """Those that this model and backend have; whether Captum is there turns out when it is asked for."""
        if self._config.task != "classification" or self._config.limits.max_explanation_s == 0:
            return ()
        if isinstance(self._backend, DifferentiableBackend):
            return ("occlusion", "integrated_gradients", "saliency")
        return ("occlusion",)

    def read_options(self, values: Mapping[str, Any]) -> ExplanationOptions:
        """A request's options, its class as a class id. Raises InvalidOptionError or NotSupportedError."""
        if not self.methods:
            raise NotSupportedError(f"this {self._config.task} model gives no explanations")
        options = parse_options(ExplanationOptions, values, {})
        if options.method not in self.methods:
            raise NotSupportedError(
                f"backend {self._config.backend!r} has no method {options.method!r}; it has {list(self.methods)}"
            )
        if options.target_class is None:
            return options
        class_id = find_class_id(options.target_class, self._labels, "target_class")
        return options.model_copy(update={"target_class": class_id})

    def explain(self, sources: Sequence[Source], timings: StageTimings) -> dict[Place, ItemResult]:
        """Results by place. Never raises for one of them."""
        shares = TimeShares(self._config.limits.max_explanation_s, len(sources))
        return {source.place: self._attempt(source, shares.next_deadline(), timings) for source in sources}

    def _attempt(self, source: Source, deadline: float, timings: StageTimings) -> ItemResult:
        items, failures = self._preparer.prepare([source], timings)
        if failures:
            return to_request_error(failures[source.place])
        try:
            with timings.measure("explanation"):
                return self._explain(items[0], deadline)
        except Exception as error:  # the border: whatever a model raises becomes the answer of this image
            return to_request_error(error)

    def _explain(self, item: Item, deadline: float) -> Explanation:
        options, (geometry,) = item.options, item.batch.geometries
        assert isinstance(options, ExplanationOptions)
        scores = self._infer(item.batch.pixels, deadline)[0].float().softmax(dim=-1)
        class_id = int(scores.argmax()) if options.target_class is None else int(options.target_class)
        red, green, blue = item.batch.pixels.float().mean(dim=(0, 1, 2)).tolist()
        subject = Subject(
            pixels=item.batch.pixels,
            class_id=class_id,
            baseline=(red, green, blue),
            infer=partial(self._infer, deadline=deadline),
            differentiate=partial(self._differentiate, deadline=deadline),
        )
        attribution = attribute(subject, options)
        require_finite(scores, attribution)
        return Explanation(
            class_id=class_id,
            label=self._labels[class_id],
            score=round(float(scores[class_id]), 6),
            method=options.method,
            heat_map=to_heat_map(attribution, geometry),
            image=ImageSize(width=geometry.source_hw[1], height=geometry.source_hw[0]),
        )

    def _infer(self, pixels: Tensor, deadline: float) -> Tensor:
        check_time(deadline)
        return self._backend.infer(pixels)["logits"]

    def _differentiate(self, pixels: Tensor, deadline: float) -> Tensor:
        check_time(deadline)
        assert isinstance(self._backend, DifferentiableBackend)
        logits = self._backend.differentiate(pixels)["logits"]
        if not logits.requires_grad:
            raise NotSupportedError("this model's network gives no gradients; use method=occlusion")
        return logits


class TimeShares:
    """The seconds of a batch, divided among its explanations: what one leaves over, the others have."""

    def __init__(self, seconds: float, count: int) -> None:
        self._end = time.monotonic() + seconds
        self._left = count

    def next_deadline(self) -> float:
        now = time.monotonic()
        share = (self._end - now) / self._left
        self._left -= 1
        return now + share


def check_time(deadline: float) -> None:
    """Raises ExplanationTimeoutError."""
    if time.monotonic() > deadline:
        raise ExplanationTimeoutError(
            "the explanation took more than its share of the time that the archive allows (max_explanation_s); ask "
            "for fewer cells or steps, or again when the server is less busy"
        )


def require_finite(scores: Tensor, attribution: Attribution) -> None:
    """Raises InferenceError."""
    if not (torch.isfinite(scores).all() and torch.isfinite(attribution.values).all()):
        raise InferenceError("the model gave scores or gradients that are not finite for this image")


def wants_explanation(headers: Mapping[str, Any]) -> bool:
    """Whether a request came by `/explanations`: TorchServe says so in a header. One who sends it asks for the same."""
    return headers.get("explain") == "True"


def wants_image(headers: Mapping[str, Any]) -> bool:
    """Whether `Accept` names a picture before it names JSON."""
    accept = next((str(value) for name, value in headers.items() if name.lower() == "accept"), "")
    known = (MEDIA_TYPES.get(part.partition(";")[0].strip().lower()) for part in accept.split(","))
    return next((wanted for wanted in known if wanted is not None), False)


def encode_explanation(outcome: Outcome, payload: Payload, headers: Mapping[str, Any], limits: ImageLimits) -> Response:
    """A picture where `Accept` asks for one and the request holds one image; else, and for an error, JSON."""
    item, encoded = outcome.items[0], payload.images[0]
    if len(outcome.items) > 1 or not wants_image(headers):
        return encode_response(outcome)
    if not isinstance(item, Explanation) or isinstance(encoded, RequestError):
        return encode_response(outcome)
    try:
        picture = decode_image(encoded, limits, partial(shrink_jpeg, spare=lambda size_hw: max(size_hw) / PICTURE_SIDE))
        return Response(200, draw_explanation(item, picture, PICTURE_SIDE), PNG_TYPE)
    except Exception as error:  # the border: a picture that cannot be drawn is this request's alone
        return encode_response(Outcome((to_request_error(error),), outcome.form))
