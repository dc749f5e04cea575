"""The request flow. `predict` is the whole of it; `initialize` and `handle` are the thin TorchServe side."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from pydantic import ValidationError
from torch import Tensor

from vision_serving.backends import find_backend, load_backend
from vision_serving.backends.base import Backend
from vision_serving.config import (
    BackendConfig,
    DeviceType,
    HandlerConfig,
    ImageLimits,
    Options,
    describe_problems,
    read_handler_config,
)
from vision_serving.errors import (
    BackendError,
    ConfigError,
    InferenceError,
    InvalidOptionError,
    OutOfResourcesError,
    PayloadTooLargeError,
    RequestError,
    VisionServingError,
)
from vision_serving.images import Image, Shrink, shrink_jpeg
from vision_serving.metrics import StageTimings
from vision_serving.payload import Payload, parse_payload
from vision_serving.predictions import Prediction
from vision_serving.preparation import Item, Place, Preparer, list_sources
from vision_serving.preprocessing import ImageBatch, join_batches, spare_ratio
from vision_serving.resources import ThreadPlan, configured_threads, plan_threads, usable_cores
from vision_serving.responses import ItemResult, Outcome, Response, encode_response

logger = logging.getLogger(__name__)

JSON_TYPE = "application/json"
CPU_OUT_OF_MEMORY = "DefaultCPUAllocator: can't allocate memory"  # torch raises it as a plain RuntimeError


class VisionHandler(ABC):
    """Serves one archive. After `load`, nothing in it changes: what belongs to a batch travels through the calls."""

    config: HandlerConfig
    labels: list[str]
    backend: Backend
    version: str = ""
    _preparer: Preparer

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
        self.config = config if limits is None else config.model_copy(update={"limits": limits})
        self.labels = read_labels(model_dir / self.config.labels)
        threads = threads or plan_threads(usable_cores(), workers=1)
        torch.set_num_threads(threads.engine)
        self.shrink = find_shrink(self.config)
        self._preparer = Preparer(self.preprocess, self.config.limits, threads.decode, self.shrink)
        backend_config = BackendConfig(
            precision=self.config.precision,
            cpu_features=self.config.cpu_features,
            threads=threads.engine,
            pin_threads=threads.pin,
        )
        self.backend = load_backend(self.config.backend, model_dir / self.config.artifact, backend_config, device)

    def predict(self, payloads: Sequence[Payload], timings: StageTimings | None = None) -> list[Outcome]:
        """One outcome per payload, in order. Never raises for one of them: a faulty image gets its own error."""
        timings = timings or StageTimings()
        options = [self._check_payload(payload) for payload in payloads]
        results: dict[Place, ItemResult] = {}
        sources, step = list_sources(payloads, options), self.config.max_images_per_inference
        for start in range(0, len(sources), step):
            items, failures = self._preparer.prepare(sources[start : start + step], timings)
            results.update({place: _to_request_error(error) for place, error in failures.items()})
            for group in group_by_size(items):
                results.update(self._predict_group(group, timings))
        return [
            Outcome(_collect(request, payload, chosen, results), payload.form)
            for request, (payload, chosen) in enumerate(zip(payloads, options, strict=True))
        ]

    def warm_up(self, batch_size: int) -> None:
        """Run gray images through all stages, so that the first request finds everything allocated and compiled."""
        batch = self.preprocess([np.full((480, 640, 3), 128, dtype=np.uint8)])
        self._run([Item((index, 0), batch, self.read_options({})) for index in range(batch_size)], StageTimings())

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

    def read_options(self, values: Mapping[str, Any]) -> Options:
        """The archive's defaults with a request's values over them. Raises InvalidOptionError."""
        model = self.config.options_model
        unknown = sorted(set(values) - set(model.model_fields))
        if unknown:
            allowed = sorted(model.model_fields)
            raise InvalidOptionError(f"unknown option {unknown[0][:60]!r}; expected one of {allowed}")
        try:
            return model.model_validate({**self.config.options, **values})
        except ValidationError as error:
            raise InvalidOptionError(describe_problems(error, model)) from error

    def _check_payload(self, payload: Payload) -> Options | RequestError:
        """The options of a request, or why none of its images is served."""
        count, limit = len(payload.images), self.config.limits.max_images
        if count > limit:
            return PayloadTooLargeError(f"the request holds {count} images; the limit is {limit}")
        try:
            return self.read_options(payload.options)
        except RequestError as error:
            return error

    def _predict_group(self, items: Sequence[Item], timings: StageTimings) -> dict[Place, ItemResult]:
        """Results by place. A batch that fails is halved until the items that make it fail stand alone."""
        try:
            predictions = self._run(items, timings)
            return {item.place: prediction for item, prediction in zip(items, predictions, strict=True)}
        except Exception as error:  # the border: whatever a model raises becomes the answer of the item that caused it
            if len(items) == 1:
                return {items[0].place: _to_request_error(error)}
        middle = len(items) // 2
        return {**self._predict_group(items[:middle], timings), **self._predict_group(items[middle:], timings)}

    def _run(self, items: Sequence[Item], timings: StageTimings) -> list[Prediction]:
        batch = join_batches([item.batch for item in items])
        with timings.measure("inference"):
            outputs = self.inference(batch)
        with timings.measure("postprocess"):
            return self.postprocess(outputs, batch, [item.options for item in items])

    # TorchServe

    def initialize(self, context: Any) -> None:
        """Called once by a TorchServe worker. Raises VisionServingError alone: of others TorchServe gives no reason."""
        properties = context.system_properties
        model_dir = Path(properties["model_dir"])
        self.version = str((context.manifest or {}).get("model", {}).get("modelVersion", ""))
        try:
            config = read_handler_config(model_dir / "model-config.yaml")
            device = choose_device(properties.get("gpu_id"), config.backend, config.device_type)
            self.load(model_dir, device, configured_threads(context.model_name, self.version))
            for batch_size in sorted({1, properties.get("batch_size") or 1}):
                self.warm_up(batch_size)
        except VisionServingError:
            raise
        except Exception as error:
            raise VisionServingError(f"{type(error).__name__}: {error}") from error

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """One body per request; statuses and headers go through the context."""
        timings = StageTimings()
        payloads = [_parse(row, context.get_all_request_header(index)) for index, row in enumerate(data)]
        outcomes = iter(self.predict([payload for payload in payloads if isinstance(payload, Payload)], timings))
        headers = self._headers(len(data), timings)
        responses = [
            encode_response(Outcome((payload,)) if isinstance(payload, RequestError) else next(outcomes))
            for payload in payloads
        ]
        for index, response in enumerate(responses):
            _set_response(context, index, response, headers)
        return [response.body for response in responses]

    def _headers(self, batch_size: int, timings: StageTimings) -> dict[str, str]:
        return {
            "X-Model-Version": self.version,
            "X-Backend": self.config.backend,
            "X-Precision": self.config.precision,
            "X-Batch-Size": str(batch_size),
            "Server-Timing": timings.server_timing(),
        }


def group_by_size(items: Sequence[Item]) -> list[list[Item]]:
    """Items that can share a batch: those of one model size."""
    groups: dict[tuple[int, int], list[Item]] = {}
    for item in items:
        groups.setdefault(item.batch.size_hw, []).append(item)
    return list(groups.values())


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


def read_labels(path: Path) -> list[str]:
    """`labels.json`: the label of each class id. Raises ConfigError."""
    try:
        labels = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise ConfigError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ConfigError(f"{path}: expected a list of strings")
    return labels


def _parse(row: Mapping[str, Any], headers: Mapping[str, Any]) -> Payload | RequestError:
    try:
        return parse_payload(row, headers)
    except RequestError as error:
        return error


def _collect(
    request: int, payload: Payload, options: Options | RequestError, results: Mapping[Place, ItemResult]
) -> tuple[ItemResult, ...]:
    """The results of one request's images, which share the error of a request that cannot be served."""
    if isinstance(options, RequestError):
        return (options,) * len(payload.images)
    return tuple(results[request, number] for number in range(len(payload.images)))


def _to_request_error(error: Exception) -> RequestError:
    if isinstance(error, RequestError):
        return error
    logger.error("inference failed on one image", exc_info=error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or CPU_OUT_OF_MEMORY in str(error):
        return OutOfResourcesError("there is not enough memory to run the model on this image")
    return InferenceError("the model failed on this image; the server's log has the reason")


def _set_response(context: Any, index: int, response: Response, headers: Mapping[str, str]) -> None:
    context.set_response_content_type(index, JSON_TYPE)
    context.set_response_status(response.status, response.phrase, index)
    for name, value in headers.items():
        context.set_response_header(index, name, value)
