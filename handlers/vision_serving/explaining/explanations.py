"""What speaks for a class in the images of a batch: a heat map for each of them, or an error of its own."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vision_serving.backends.base import DifferentiableBackend, LoadedBackend
from vision_serving.config import HandlerConfig
from vision_serving.errors import ExplanationTimeoutError, InferenceError, NotSupportedError, PayloadTooLargeError
from vision_serving.explaining.attribution import Attribution, ExplainedImage, attribute, to_heat_map
from vision_serving.foreign_errors import try_stage
from vision_serving.labels import find_class_ids
from vision_serving.options import ExplanationOptions, Method, parse_options
from vision_serving.pictures.preparation import PreparedImage, Preparer, Source
from vision_serving.predictions import Explanation, ImageSize
from vision_serving.requests.contents import ImageIndex
from vision_serving.results.outcome import ImageResult
from vision_serving.results.postprocessing import score_classes
from vision_serving.timings import StageTimings


class Explainer:
    """Explains images one after the other: each costs tens of inferences, which run in batches of their own."""

    def __init__(
        self, backend: LoadedBackend, preparer: Preparer, labels: Sequence[str], config: HandlerConfig
    ) -> None:
        self._backend = backend
        self._preparer = preparer
        self._labels = labels
        self._config = config

    @property
    def methods(self) -> tuple[Method, ...]:
        """Return the methods that this model and backend have. Only a request shows whether Captum is there."""
        if self._config.task != "classification" or self._config.limits.max_explanation_s == 0:
            return ()
        if isinstance(self._backend, DifferentiableBackend):
            return ("occlusion", "integrated_gradients", "saliency")
        return ("occlusion",)

    def read_options(self, values: Mapping[str, Any]) -> ExplanationOptions:
        """Return a request's options, its class as class ids. Raises InvalidOptionError or NotSupportedError."""
        if not self.methods:
            raise NotSupportedError(f"this {self._config.task} model gives no explanations")
        options = parse_options(ExplanationOptions, values, {})
        if options.method not in self.methods:
            raise NotSupportedError(
                f"backend {self._config.backend!r} has no method {options.method!r}; it has {list(self.methods)}; "
                "an archive built with --backend eager or torchscript has those of gradients"
            )
        if options.target_class is None:
            return options
        class_ids = find_class_ids(options.target_class, self._labels, "target_class")
        return options.model_copy(update={"target_class": class_ids})

    def explain(self, sources: Sequence[Source], timings: StageTimings) -> dict[ImageIndex, ImageResult]:
        """Return results by index. Never raises for one of them."""
        shares = TimeShares(self._config.limits.max_explanation_s, len(sources))
        return {source.index: self._explain_source(source, shares.next_deadline(), timings) for source in sources}

    def _explain_source(self, source: Source, deadline: float, timings: StageTimings) -> ImageResult:
        most = self._config.limits.max_explanation_images
        if source.images > most:
            return PayloadTooLargeError(
                f"the request asks for explanations of {source.images} images; the limit is {most} "
                "(max_explanation_images of the archive): send them in several requests"
            )
        prepared, failures = self._preparer.prepare([source], timings)
        if failures:
            return failures[source.index]
        with timings.measure("explanation"):
            return try_stage("inference", self._explain, prepared[0], deadline)

    def _explain(self, image: PreparedImage, deadline: float) -> Explanation:
        pixels, options, (geometry,) = image.batch.pixels, image.options, image.batch.geometries
        assert isinstance(options, ExplanationOptions)
        scores = score_classes(self._infer(pixels, deadline)[0], self._config.activation)
        class_ids: Any = range(len(scores)) if options.target_class is None else options.target_class
        class_id = max(class_ids, key=lambda wanted: float(scores[wanted]))
        red, green, blue = pixels.float().mean(dim=(0, 1, 2)).tolist()
        explained = ExplainedImage(
            pixels=pixels,
            class_id=class_id,
            baseline=(red, green, blue),
            infer=partial(self._infer, deadline=deadline),
            differentiate=partial(self._differentiate, deadline=deadline),
        )
        attribution = attribute(explained, options)
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
