"""The flow of a request: encoded images in, one outcome per request out. It needs no server.

load       read an extracted archive, then assemble what is in it
assemble   connect the parts that predict and explain
predict    requests -> images that can be served -> pixels at model size -> results -> outcomes
explain    the same, with a heat map for each image

A task is a subclass with `preprocess` and `postprocess`. `worker/service.py` is TorchServe's side of it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from vision_serving.answers.encoding import options_for_drawing
from vision_serving.backends import load_backend
from vision_serving.backends.base import FixedBatchBackend, LoadedBackend
from vision_serving.batching import Batcher
from vision_serving.config import BackendConfig, HandlerConfig, ImageLimits, read_handler_config
from vision_serving.cores import ThreadPlan, plan_threads, usable_cores
from vision_serving.errors import RequestError
from vision_serving.explaining.explanations import Explainer
from vision_serving.foreign_errors import to_request_error
from vision_serving.geometry import ImageGeometry
from vision_serving.labels import read_labels
from vision_serving.options import Options, parse_options
from vision_serving.pictures.decoding import Image
from vision_serving.pictures.formats import load_formats
from vision_serving.pictures.preparation import (
    PreparedImage,
    Preparer,
    Source,
    check_cost,
    find_shrink,
    list_sources,
    split_sources,
)
from vision_serving.pictures.resizing import ImageBatch
from vision_serving.predictions import Prediction
from vision_serving.requests.accept import JSON_TYPE
from vision_serving.requests.contents import ImageIndex
from vision_serving.requests.payload import Payload
from vision_serving.results.outcome import ImageResult, Outcome, check_scores
from vision_serving.timings import StageTimings

CPU = torch.device("cpu")
ReadOptions: TypeAlias = Callable[[Mapping[str, Any]], Options]
RunImages: TypeAlias = Callable[[Sequence[Source], StageTimings], Mapping[ImageIndex, ImageResult]]


class VisionHandler(ABC):
    """Serves one archive. It keeps nothing of a batch: what belongs to a batch travels through the calls."""

    config: HandlerConfig
    labels: Sequence[str]
    backend: LoadedBackend
    device: torch.device
    explainer: Explainer
    _preparer: Preparer
    _batcher: Batcher

    def load(
        self,
        model_dir: Path,
        device: torch.device,
        threads: ThreadPlan | None = None,
        limits: ImageLimits | None = None,
    ) -> None:
        """Read an extracted archive and make its backend ready. Raises ConfigError or BackendError.

        threads: by default those of a worker that is alone on the machine. limits: instead of the archive's own.
        """
        config = read_handler_config(model_dir / "model-config.yaml")
        if limits is not None:
            config = config.model_copy(update={"limits": limits})
        labels = read_labels(model_dir / config.labels)
        threads = threads or plan_threads(usable_cores(), workers=1)
        torch.set_num_threads(threads.engine)
        load_formats(config.limits.formats)
        backend_config = BackendConfig(
            precision=config.precision,
            cpu_features=config.cpu_features,
            threads=threads.engine,
            pin_threads=threads.pin,
        )
        backend: LoadedBackend = load_backend(config.backend, model_dir / config.artifact, backend_config, device)
        if config.fixed_batch is not None:
            backend = FixedBatchBackend(backend, config.fixed_batch)
        self.assemble(config, labels, backend, device, threads.decode)

    def assemble(
        self,
        config: HandlerConfig,
        labels: Sequence[str],
        backend: LoadedBackend,
        device: torch.device = CPU,
        decode_threads: int = 1,
    ) -> None:
        """Connect what serves a model. device: where the backend runs."""
        self.config, self.labels, self.backend, self.device = config, labels, backend, device
        self._preparer = Preparer(self.preprocess, config.limits, decode_threads, find_shrink(config), config.colours)
        self._batcher = Batcher(self, config.max_images_per_inference, device)
        self.explainer = Explainer(backend, self._preparer, labels, config)

    def predict(self, payloads: Sequence[Payload], timings: StageTimings | None = None) -> list[Outcome]:
        """Return one outcome per payload, in order. Never raises for one of them: a faulty image gets its own error."""
        return self._answer(payloads, self.read_options, self._predict_images, timings or StageTimings())

    def explain(self, payloads: Sequence[Payload], timings: StageTimings | None = None) -> list[Outcome]:
        """Return, as `predict` does, what speaks for a class in each image. It costs tens of inferences an image."""
        return self._answer(payloads, self.explainer.read_options, self.explainer.explain, timings or StageTimings())

    def _answer(
        self, payloads: Sequence[Payload], read_options: ReadOptions, run: RunImages, timings: StageTimings
    ) -> list[Outcome]:
        """Run all requests together. After a failure that belongs to no image, run each of them alone."""
        try:
            options = [self._check_payload(payload, read_options) for payload in payloads]
            results = run(list_sources(payloads, options), timings)
            return [
                Outcome(_collect(number, len(payload.images), chosen, results), payload.form, payload.wishes)
                for number, (payload, chosen) in enumerate(zip(payloads, options, strict=True))
            ]
        except Exception as error:
            if len(payloads) == 1:
                return [Outcome((to_request_error(error),), payloads[0].form, payloads[0].wishes)]
        return [outcome for payload in payloads for outcome in self._answer([payload], read_options, run, timings)]

    def _predict_images(self, sources: Sequence[Source], timings: StageTimings) -> dict[ImageIndex, ImageResult]:
        """Return a prediction or an error for each image."""
        results: dict[ImageIndex, ImageResult] = {}
        for together in split_sources(sources, self.config.max_images_per_inference):
            prepared, failures = self._preparer.prepare(together, timings)
            results.update(failures)
            results.update(self._batcher.predict(prepared, timings))
        return results

    def _check_payload(self, payload: Payload, read_options: ReadOptions) -> Options | RequestError:
        """Return the options of a request, or why none of its images is served."""
        try:
            check_cost(payload.images, self.config.limits)
            options = read_options(payload.options)
        except RequestError as error:
            return error.without_frames()
        return options if payload.answer_type == JSON_TYPE else options_for_drawing(options)

    def warm_up(self, batch_size: int) -> None:
        """Run gray images through all stages, so that the first request finds everything allocated and compiled."""
        batch = self.preprocess([np.full((480, 640, 3), 128, dtype=np.uint8)])
        options = self.read_options({})
        self._batcher.run([PreparedImage((index, 0), batch, options) for index in range(batch_size)], StageTimings())

    @abstractmethod
    def preprocess(self, images: Sequence[Image]) -> ImageBatch:
        """Bring images that share one model size to it.

        For a request, several threads call it at the same time, each with one image or tile.
        """

    def inference(self, batch: ImageBatch) -> dict[str, Tensor]:
        """Return the named outputs of the backend, N first."""
        return self.backend.infer(batch.pixels)

    @abstractmethod
    def postprocess(
        self, outputs: Mapping[str, Tensor], batch: ImageBatch, options: Sequence[Options]
    ) -> list[Prediction]:
        """Return one prediction per image of the batch."""

    def join(
        self, predictions: Sequence[Prediction], geometries: Sequence[ImageGeometry], options: Options
    ) -> Prediction:
        """Return the answer for one image, from its own prediction and, where a task has tiles, from those of each."""
        (prediction,) = predictions
        return prediction

    def read_options(self, values: Mapping[str, Any]) -> Options:
        """Put a request's values over the archive's defaults. Raises InvalidOptionError."""
        return parse_options(self.config.options_model, values, self.config.options)


def _collect(
    request: int, images: int, options: Options | RequestError, results: Mapping[ImageIndex, ImageResult]
) -> tuple[ImageResult, ...]:
    """Return a request's results in order. The images of one that cannot be served share its error."""
    if isinstance(options, RequestError):
        return (options,) * images
    return tuple(check_scores(results[request, number]) for number in range(images))
