"""TorchServe's side of a handler: a worker calls `initialize` once, then `handle` with each batch of requests."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import torch

from vision_serving.answers.encoding import encode_answer
from vision_serving.answers.responses import ModelIdentity, Response, bound, encode_response, header_text
from vision_serving.backends import find_backend
from vision_serving.config import DeviceType, read_handler_config
from vision_serving.errors import (
    BackendError,
    DeviceLostError,
    OutOfResourcesError,
    RequestError,
)
from vision_serving.foreign_errors import try_stage
from vision_serving.handler import VisionHandler
from vision_serving.requests.accept import JSON_TYPE
from vision_serving.requests.payload import Payload, parse_payload
from vision_serving.results.outcome import Outcome
from vision_serving.timings import StageTimings
from vision_serving.worker.correlation import read_correlation
from vision_serving.worker.draining import find_refusal, keep_still_if_leaving, refuse
from vision_serving.worker.explanation_budget import ExplanationBudget
from vision_serving.worker.failure_log import Answered, has_failed, log_failure
from vision_serving.worker.guard import WorkerGuard, is_worker
from vision_serving.worker.metrics import WorkerMetrics
from vision_serving.worker.model_card import build_card, is_describe_job
from vision_serving.worker.receiving import receive_at_once
from vision_serving.worker.sampling import Sampler
from vision_serving.worker.server_settings import (
    DEFAULT_BODY_BYTES,
    configured_answer_bytes,
    configured_headroom_mb,
    configured_threads,
)
from vision_serving.worker.tracing import Tracing


class TorchServeHandler(VisionHandler):
    """A handler that TorchServe can run. The class of an entry file extends it.

    guard, budget, metrics, tracing, sampler, max_answer_bytes   as `initialize` sets them; without it nothing is
    guarded, counted, traced or sampled
    """

    max_answer_bytes: int = DEFAULT_BODY_BYTES
    _card: bytes | None = None

    def __init__(self) -> None:
        super().__init__()
        self.guard, self.budget = WorkerGuard(), ExplanationBudget(share=1)
        self.metrics, self.tracing = WorkerMetrics(), Tracing()
        self.sampler = Sampler()

    def initialize(self, context: Any) -> None:
        """Load the archive of this worker. Raises VisionServingError alone: of others TorchServe gives no reason."""
        properties, model = context.system_properties, identify(context)
        model_dir = Path(properties["model_dir"])
        self.guard = WorkerGuard.of(model_dir)
        if is_worker():
            receive_at_once()
            self.metrics = WorkerMetrics.of(model)
        with self.guard.load(model_dir):
            config = read_handler_config(model_dir / "model-config.yaml")
            device = choose_device(properties.get("gpu_id"), config.backend, config.device_type)
            self.load(model_dir, device, configured_threads(model.name, model.version))
            self.max_answer_bytes = configured_answer_bytes()
            self.budget = ExplanationBudget(config.limits.max_explanation_share)
            for batch_size in sorted({1, properties.get("batch_size") or 1}):
                self.warm_up(batch_size)
            self.tracing = Tracing.of(model, {"vision.backend": config.backend, "vision.precision": config.precision})
            if is_worker():
                self.sampler = Sampler.of(model, model_dir, config)
            self.guard.freeze_objects()
            if device.type == "cpu":  # CUDA reserves far more addresses than it uses
                self.guard.limit_memory(configured_headroom_mb(model.name, model.version))

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Return one body per request; statuses and headers go through the context."""
        started_s = time.perf_counter()
        with self.guard.batch():
            request_headers = [context.get_all_request_header(index) for index in range(len(data))]
            if is_describe_job(data, request_headers):
                keep_still_if_leaving(self.tracing.flush)
                responses, headers = [Response(200, self._describe(context))], {}
            else:
                model, timings = identify(context), StageTimings()
                responses, outcomes = self._respond(data, request_headers, model, timings)
                headers = self.response_headers(responses, model, timings)
                self.metrics.count_batch(request_headers, outcomes, responses, timings, started_s)
                self.tell(context, outcomes, responses, timings, started_s)
            for index, response in enumerate(responses):
                _set_response(context, index, response, headers)
            return [response.body for response in responses]

    def _describe(self, context: Any) -> bytes:
        """Return the model card as JSON, made when it is first asked for: it reads every file of the archive."""
        if self._card is None:
            folder, methods = Path(context.system_properties["model_dir"]), self.explainer.methods
            self._card = orjson.dumps(build_card(folder, self.config, self.labels, methods, str(self.device)))
        return self._card

    def _respond(
        self,
        rows: Sequence[Mapping[str, Any]],
        headers: Sequence[Mapping[str, Any]],
        model: ModelIdentity,
        timings: StageTimings,
    ) -> tuple[list[Response], list[Outcome]]:
        """Read, run and answer each request of a batch. Return its answers, and what came of its images."""
        payloads = [_read(row, head) for row, head in zip(rows, headers, strict=True)]
        refusal = find_refusal()
        if refusal is not None:
            payloads = [refuse(payload, refusal) for payload in payloads]
            self.tracing.flush_soon()
        outcomes = self._run(payloads, timings)
        self._end_where_broken(outcomes)
        pairs = zip(payloads, outcomes, strict=True)
        responses = [self._encode(payload, outcome, model, timings) for payload, outcome in pairs]
        self.sampler.sample_batch(payloads, headers, outcomes, responses)
        return responses, outcomes

    def tell(
        self,
        context: Any,
        outcomes: Sequence[Outcome],
        responses: Sequence[Response],
        timings: StageTimings,
        started_s: float,
    ) -> None:
        """Write the requests of a batch that failed into the log, and send the spans of those that are traced.

        started_s: of time.perf_counter, when the batch came.
        """
        answered = []
        for index, (outcome, response) in enumerate(zip(outcomes, responses, strict=True)):
            failed = has_failed(outcome, response)
            if failed or self.tracing.is_on:
                server_id = context.get_request_id(index) if hasattr(context, "get_request_id") else None
                correlation = read_correlation(context.get_all_request_header(index), server_id)
                answered.append(Answered(correlation, outcome, response))
                if failed:
                    log_failure(answered[-1], identify(context), len(responses))
        self.tracing.trace_batch(answered, timings, started_s)

    def _run(self, payloads: Sequence[Payload], timings: StageTimings) -> list[Outcome]:
        """Predict in a batch, then explain one by one what asks for an explanation."""
        predicted = [payload for payload in payloads if not payload.wants_explanation]
        predictions = iter(self.predict(predicted, timings))
        return [
            self._explain(payload, timings, bool(predicted)) if payload.wants_explanation else next(predictions)
            for payload in payloads
        ]

    def _explain(self, payload: Payload, timings: StageTimings, beside_predictions: bool) -> Outcome:
        """Explain the images of a request, or refuse it where predictions leave no time for that."""
        with self.budget.spend(beside_predictions) as refusal:
            if refusal is not None:
                return Outcome((refusal,), payload.form, payload.wishes)
            return self.explain([payload], timings)[0]

    def _end_where_broken(self, outcomes: Sequence[Outcome]) -> None:
        """Let this worker end after its answer when it can serve no other batch.

        Memory that is lacking for the smallest batch, too, has leaked: only a new process has it again.
        """
        items = [item for outcome in outcomes for item in outcome.items]
        if any(isinstance(item, DeviceLostError) for item in items):
            self.guard.end_after_answer("the model's device or runtime failed")
        starved = bool(items) and all(isinstance(item, OutOfResourcesError) for item in items)
        if starved and isinstance(try_stage("warm-up", self.warm_up, 1), OutOfResourcesError):
            self.guard.end_after_answer("there is no memory left for any image")

    def _encode(self, payload: Payload, outcome: Outcome, model: ModelIdentity, timings: StageTimings) -> Response:
        """Return the answer of a request, or why there can be none: labels that are no UTF-8, a body too long."""
        stage = "answer" if payload.answer_type == JSON_TYPE else "drawing"
        response = try_stage(stage, encode_answer, payload, outcome, model, self.config, timings)
        if isinstance(response, RequestError):
            return encode_response(replace(outcome, items=(response,)))
        return bound(response, outcome, self.max_answer_bytes)

    def response_headers(
        self, responses: Sequence[Response], model: ModelIdentity, timings: StageTimings
    ) -> dict[str, str]:
        """Return the headers that all answers of a batch have."""
        return {
            "X-Model-Version": model.version,
            "X-Backend": self.config.backend,
            "X-Precision": self.config.precision,
            "X-Batch-Size": str(len(responses)),
            "X-Batch-Failed": str(sum(response.status >= 400 for response in responses)),
            "X-Worker-Pid": str(os.getpid()),
            "Server-Timing": timings.server_timing(),
        }


def identify(context: Any) -> ModelIdentity:
    """Return the name under which TorchServe serves the model, and the version that its manifest states."""
    version = (context.manifest or {}).get("model", {}).get("modelVersion", "")
    return ModelIdentity(str(context.model_name), str(version))


def choose_device(gpu_id: int | None, backend: str, device_type: DeviceType | None = None) -> torch.device:
    """Return the GPU that TorchServe dealt to this worker where the archive can use it, else the CPU.

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
    """Return a request, or the payload of its error where it cannot be read, for example because memory ran out."""
    payload = try_stage("reading", parse_payload, row, headers)
    return Payload(images=(payload,)) if isinstance(payload, RequestError) else payload


def _set_response(context: Any, index: int, response: Response, headers: Mapping[str, str]) -> None:
    context.set_response_content_type(index, response.content_type)
    context.set_response_status(response.status, response.phrase, index)
    for name, value in {**headers, **response.headers}.items():
        context.set_response_header(index, name, header_text(value))
