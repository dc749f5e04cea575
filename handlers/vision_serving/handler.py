"""The request flow. `predict` is the whole of it; `initialize` and `handle` are the thin TorchServe side."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from torch import Tensor

from vision_serving.answers.annotated import encode_answer, options_for_drawing
from vision_serving.answers.outcomes import collect, predict_each
from vision_serving.answers.responses import Response, ServedModel, bound, encode_response, header_text
from vision_serving.backends import find_backend, load_backend
from vision_serving.backends.base import Backend
from vision_serving.batching import Batcher
from vision_serving.config import BackendConfig, DeviceType, HandlerConfig, ImageLimits, read_handler_config
from vision_serving.cores import ThreadPlan, plan_threads, usable_cores
from vision_serving.errors import (
    BackendError,
    DeviceLostError,
    OutOfResourcesError,
    RequestError,
)
from vision_serving.explaining.explanations import Explainer, wants_explanation
from vision_serving.foreign_errors import to_request_error
from vision_serving.geometry import ImageGeometry
from vision_serving.labels import read_labels
from vision_serving.metrics import StageTimings
from vision_serving.options import Options, parse_options
from vision_serving.pictures.decoding import Image, Shrink, load_formats, shrink_jpeg
from vision_serving.pictures.preparation import Item, Preparer, check_cost, list_sources, split_sources
from vision_serving.pictures.resizing import ImageBatch, spare_ratio
from vision_serving.predictions import Prediction
from vision_serving.requests.accept import JSON_TYPE
from vision_serving.requests.contents import Place
from vision_serving.requests.payload import Payload, parse_payload
from vision_serving.results.outcome import ItemResult, Outcome
from vision_serving.worker.draining import find_refusal, keep_still_if_leaving, refuse
from vision_serving.worker.guard import WorkerGuard
from vision_serving.worker.model_card import build_card, is_describe_job
from vision_serving.worker.server_settings import (
    DEFAULT_ANSWER_BYTES,
    configured_answer_bytes,
    configured_headroom_mb,
    configured_threads,
)

ReadOptions = Callable[[Mapping[str, Any]], Options]


class VisionHandler(ABC):
    """Serves one archive. After `load`, nothing in it changes: what belongs to a batch travels through the calls."""

    config: HandlerConfig
    labels: list[str]
    backend: Backend
    name: str = ""
    version: str = ""
    _max_answer_bytes: int = DEFAULT_ANSWER_BYTES
    _guard: WorkerGuard = WorkerGuard()
    _preparer: Preparer
    _batcher: Batcher
    _explainer: Explainer
    _folder: Path
    _device: torch.device

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
        self._folder, self._device = model_dir, device
        self.config = config if limits is None else config.model_copy(update={"limits": limits})
        self.labels = read_labels(model_dir / self.config.labels)
        threads = threads or plan_threads(usable_cores(), workers=1)
        torch.set_num_threads(threads.engine)
        self.shrink = find_shrink(self.config)
        load_formats(self.config.limits.formats)
        self._preparer = Preparer(self.preprocess, self.config.limits, threads.decode, self.shrink, self.config.colours)
        backend_config = BackendConfig(
            precision=self.config.precision,
            cpu_features=self.config.cpu_features,
            threads=threads.engine,
            pin_threads=threads.pin,
        )
        self.backend = load_backend(self.config.backend, model_dir / self.config.artifact, backend_config, device)
        limit = self.config.max_images_per_inference
        self._batcher = Batcher(self.inference, self.postprocess, self.join, limit, device)
        self._explainer = Explainer(self.backend, self._preparer, self.labels, self.config)

    def predict(self, payloads: Sequence[Payload], timings: StageTimings | None = None) -> list[Outcome]:
        """One outcome per payload, in order. Never raises for one of them: a faulty image gets its own error."""
        timings = timings or StageTimings()
        options = [self._check_payload(payload, self.read_options) for payload in payloads]
        results: dict[Place, ItemResult] = {}
        for sources in split_sources(list_sources(payloads, options), self.config.max_images_per_inference):
            items, failures = self._preparer.prepare(sources, timings)
            results.update(failures)
            results.update(self._batcher.predict(items, timings))
        return collect(payloads, options, results)

    def explain(self, payloads: Sequence[Payload], timings: StageTimings | None = None) -> list[Outcome]:
        """As `predict`, but what speaks for a class in each image, at the price of tens of inferences."""
        options = [self._check_payload(payload, self._explainer.read_options) for payload in payloads]
        results = self._explainer.explain(list_sources(payloads, options), timings or StageTimings())
        return collect(payloads, options, results)

    def warm_up(self, batch_size: int) -> None:
        """Run gray images through all stages, so that the first request finds everything allocated and compiled."""
        batch = self.preprocess([np.full((480, 640, 3), 128, dtype=np.uint8)])
        self._batcher.run(
            [Item((index, 0), batch, self.read_options({})) for index in range(batch_size)], StageTimings()
        )

    @abstractmethod
    def preprocess(self, images: Sequence[Image]) -> ImageBatch:
        """Images that share one model size -> their batch. Called in several threads at a time, of an image each."""

    def inference(self, batch: ImageBatch) -> dict[str, Tensor]:
        """Named outputs of the backend, N first."""
        return self.backend.infer(batch.pixels)

    @abstractmethod
    def postprocess(
        self, outputs: Mapping[str, Tensor], batch: ImageBatch, options: Sequence[Options]
    ) -> list[Prediction]:
        """One prediction per image of the batch."""

    def join(
        self, predictions: Sequence[Prediction], geometries: Sequence[ImageGeometry], options: Options
    ) -> Prediction:
        """The answer for one image, from what `postprocess` gave for it, and for its tiles where a task has them."""
        (prediction,) = predictions
        return prediction

    def read_options(self, values: Mapping[str, Any]) -> Options:
        """The archive's defaults with a request's values over them. Raises InvalidOptionError."""
        return parse_options(self.config.options_model, values, self.config.options)

    def _check_payload(self, payload: Payload, read_options: ReadOptions) -> Options | RequestError:
        """The options of a request, or why none of its images is served."""
        try:
            check_cost(payload.images, self.config.limits)
            options = read_options(payload.options)
        except RequestError as error:
            return error.without_frames()
        return options if payload.answer_type == JSON_TYPE else options_for_drawing(options)

    # TorchServe

    def initialize(self, context: Any) -> None:
        """Called once by a TorchServe worker. Raises VisionServingError alone: of others TorchServe gives no reason."""
        properties = context.system_properties
        model_dir = Path(properties["model_dir"])
        self.name = str(context.model_name)
        self.version = str((context.manifest or {}).get("model", {}).get("modelVersion", ""))
        self._guard = WorkerGuard.of(model_dir)
        with self._guard.load(model_dir):
            config = read_handler_config(model_dir / "model-config.yaml")
            device = choose_device(properties.get("gpu_id"), config.backend, config.device_type)
            self.load(model_dir, device, configured_threads(self.name, self.version))
            self._max_answer_bytes = configured_answer_bytes()
            for batch_size in sorted({1, properties.get("batch_size") or 1}):
                self.warm_up(batch_size)
            self._guard.freeze_objects()
            if device.type == "cpu":  # CUDA reserves far more addresses than it uses
                self._guard.limit_memory(configured_headroom_mb(self.name, self.version))

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """One body per request; statuses and headers go through the context."""
        with self._guard.batch():
            return self._handle(data, context)

    def _handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        request_headers = [context.get_all_request_header(index) for index in range(len(data))]
        if is_describe_job(data, request_headers):
            keep_still_if_leaving()
            responses, headers = [Response(200, self.card)], {}
        else:
            timings = StageTimings()
            responses = self._respond(data, request_headers, timings)
            headers = self._headers(responses, timings)
        for index, response in enumerate(responses):
            _set_response(context, index, response, headers)
        return [response.body for response in responses]

    @cached_property
    def card(self) -> bytes:
        """The model card as JSON, made when it is first asked for: it reads every file of the archive."""
        methods = self._explainer.methods
        return orjson.dumps(build_card(self._folder, self.config, self.labels, methods, str(self._device)))

    def _respond(
        self, rows: Sequence[Mapping[str, Any]], headers: Sequence[Mapping[str, Any]], timings: StageTimings
    ) -> list[Response]:
        """Predictions run first, in a batch of their own; explanations after them, one by one."""
        payloads = [_read(row, head) for row, head in zip(rows, headers, strict=True)]
        refusal = find_refusal()
        if refusal is not None:
            payloads = [refuse(payload, refusal) for payload in payloads]
        outcomes: dict[int, Outcome] = {}
        for predict, explains in ((self.predict, False), (self.explain, True)):
            asked = [index for index, head in enumerate(headers) if wants_explanation(head) == explains]
            found = predict_each(predict, [payloads[index] for index in asked], timings)
            outcomes.update(zip(asked, found, strict=True))
        items = [item for outcome in outcomes.values() for item in outcome.items]
        if any(isinstance(item, DeviceLostError) for item in items):
            self._guard.end_after_answer("the model's device or runtime failed")
        if items and all(isinstance(item, OutOfResourcesError) for item in items) and self._is_starved():
            self._guard.end_after_answer("there is no memory left for any image")
        return [self._encode(payload, outcomes[index], timings) for index, payload in enumerate(payloads)]

    def _is_starved(self) -> bool:
        """Whether memory is lacking for the smallest batch too: then it leaked, and only a new process has it again."""
        try:
            self.warm_up(1)
        except Exception as error:  # logged, and told apart, as that of an image is
            return isinstance(to_request_error(error, "warm-up"), OutOfResourcesError)
        return False

    def _encode(self, payload: Payload, outcome: Outcome, timings: StageTimings) -> Response:
        model, limit = ServedModel(self.name, self.version), self._max_answer_bytes
        try:
            return bound(encode_answer(payload, outcome, model, self.config, timings), outcome, limit)
        except Exception as error:  # the border: an answer that is no JSON, such as of labels that are no UTF-8
            failure = to_request_error(error, "answer")
            return encode_response(replace(outcome, items=(failure,)), ServedModel())

    def _headers(self, responses: Sequence[Response], timings: StageTimings) -> dict[str, str]:
        return {
            "X-Model-Version": self.version,
            "X-Backend": self.config.backend,
            "X-Precision": self.config.precision,
            "X-Batch-Size": str(len(responses)),
            "X-Batch-Failed": str(sum(response.status >= 400 for response in responses)),
            "X-Worker-Pid": str(os.getpid()),
            "Server-Timing": timings.server_timing(),
        }


def find_shrink(config: HandlerConfig) -> Shrink | None:
    """What the archive allows to be done to images before they are decoded."""
    if not config.scaled_decoding:
        return None
    return partial(shrink_jpeg, spare=partial(spare_ratio, config=config.preprocessing))


def choose_device(gpu_id: int | None, backend: str, device_type: DeviceType | None = None) -> torch.device:
    """The GPU that TorchServe dealt to this worker, where the archive's backend and artifact run on GPUs; else the CPU.

    Raises BackendError when the artifact needs a GPU and there is none, or the GPU cannot be used.
    """
    if device_type == "cpu" or "cuda" not in find_backend(backend).device_types:
        return torch.device("cpu")
    if gpu_id is None:
        if device_type == "cuda":
            raise BackendError("the artifact was built for a GPU, and TorchServe dealt none; set number_of_gpu")
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise BackendError(f"TorchServe dealt GPU {gpu_id}, which this PyTorch cannot use; set number_of_gpu=0")
    return torch.device(f"cuda:{gpu_id}")


def _read(row: Mapping[str, Any], headers: Mapping[str, Any]) -> Payload:
    """The border of reading: whatever it raises, for want of memory say, is the answer of that request."""
    try:
        return parse_payload(row, headers)
    except Exception as error:
        return Payload(images=(to_request_error(error, "reading"),))


def _set_response(context: Any, index: int, response: Response, headers: Mapping[str, str]) -> None:
    context.set_response_content_type(index, response.content_type)
    context.set_response_status(response.status, response.phrase, index)
    for name, value in {**headers, **response.headers}.items():
        context.set_response_header(index, name, header_text(value))
