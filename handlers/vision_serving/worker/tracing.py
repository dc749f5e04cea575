"""Spans of the requests whose callers record a trace, made after the batch from the times that were taken anyway.

    predict digits          as a child of the caller's span: from the front's first byte to the worker's answer
    ├── front               until the front asks the server
    ├── queue               until the worker begins with the batch
    ├── decode, preprocess, inference, postprocess, ...     as `Server-Timing` has them, of the whole batch
    └── batch               of the first such request of a batch; it is linked to all of them

On where OTEL_EXPORTER_OTLP_ENDPOINT is set. A request whose caller records nothing costs a look at its headers.
"""

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vision_serving.answers.responses import ModelIdentity
from vision_serving.errors import VisionServingError, how_to_install
from vision_serving.log_lines import escape
from vision_serving.timings import StageTimings
from vision_serving.worker.failure_log import Answered

if TYPE_CHECKING:  # an optional package, imported where traces are asked for
    from vision_serving.worker.span_export import Span, SpanSender

logger = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
FLUSH_S = 1.0
NANO, MILLI = 1_000_000_000, 1_000_000  # nanoseconds of a second, of a millisecond


class Tracing:
    """One worker's. Without a sender, and after a failure of its own, all of it does nothing."""

    def __init__(self, sender: "SpanSender | None" = None, model_name: str = "") -> None:
        self._sender = sender
        self._model_name = model_name
        self._flushing: threading.Thread | None = None

    @classmethod
    def of(cls, model: ModelIdentity, attributes: Mapping[str, str]) -> "Tracing":
        """Begin to send, where the environment names a receiver. A failure is a line in the log.

        attributes: of the model, which all of its spans have. It starts a thread, so call it after the load.
        """
        variable = next((name for name in ENDPOINTS if os.environ.get(name)), None)
        if variable is None or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return cls()
        try:
            from vision_serving.worker.span_export import start_sending

            of_model = {"vision.model": model.name, "vision.version": model.version, **attributes}
            return cls(start_sending(variable, of_model), model.name)
        except ModuleNotFoundError as error:
            reason = f"traces need {how_to_install(error)}"
        except VisionServingError as error:
            reason = str(error)
        except Exception as error:  # of any kind: a trace is worth no start
            reason = f"{type(error).__name__}: {error}"
        logger.error("this worker sends no traces, and predicts all the same: %s", escape(reason))
        return cls()

    @property
    def is_on(self) -> bool:
        return self._sender is not None

    def trace_batch(self, requests: Sequence[Answered], timings: StageTimings, started_s: float) -> None:
        """Make the spans of a batch that came at `started_s` (time.perf_counter) and is answered now. Never raises."""
        sampled = [each for each in requests if each.correlation.parent and each.correlation.parent.sampled]
        if self._sender is None or not sampled:
            return
        try:
            self._trace(self._sender, sampled, len(requests), Stages(timings, started_s))
        except Exception as error:
            logger.error("this worker traces no more: %s: %s", type(error).__name__, escape(str(error)))
            self._sender = None

    def flush(self, timeout_s: float = FLUSH_S) -> None:
        """Send what is there, and wait no longer than `timeout_s` for it."""
        thread = self._flush_in_thread()
        if thread is not None:
            thread.join(timeout_s)

    def flush_soon(self) -> None:
        """Send what is there, and do not wait."""
        self._flush_in_thread()

    def _flush_in_thread(self) -> threading.Thread | None:
        """Return the thread that sends: one alone, as a draining worker asks with each batch that it refuses."""
        if self._sender is not None and (self._flushing is None or not self._flushing.is_alive()):
            self._flushing = threading.Thread(target=self._sender.flush, name="flush_traces", daemon=True)
            self._flushing.start()
        return self._flushing

    def _trace(self, sender: "SpanSender", sampled: Sequence[Answered], batch_size: int, stages: "Stages") -> None:
        roots = [self._trace_request(sender, each, batch_size, stages) for each in sampled]
        batch = sender.start("batch", stages.began, roots[0], {"vision.batch_size": batch_size}, links=roots)
        for span in (batch, *roots):
            span.end(stages.ended)

    def _trace_request(self, sender: "SpanSender", answered: Answered, batch_size: int, stages: "Stages") -> "Span":
        """Return the span of a request, which has not ended; those of its parts have."""
        told, response = answered.correlation, answered.response
        assert told.parent is not None
        asked = stages.began if told.started_s is None else min(stages.began, round(told.started_s * NANO))
        arrived = asked if told.arrived_s is None else min(asked, round(told.arrived_s * NANO))
        attributes: dict[str, Any] = {
            "vision.request_id": told.id,
            "vision.batch_size": batch_size,
            "vision.images": len(answered.outcome.items),
            "http.response.status_code": response.status,
        }
        if response.status >= 400:
            attributes["error.type"] = response.error
        root = sender.start_remote(f"predict {self._model_name}", arrived, told.parent, attributes)
        if told.arrived_s is not None:
            sender.start("front", arrived, root).end(asked)
        if told.started_s is not None:
            sender.start("queue", asked, root).end(stages.began)
        for name, begins, ends in stages.each:
            sender.start(name, begins, root).end(ends)
        return root


class Stages:
    """A batch that is answered now, in nanoseconds since 1970. each: its stages as (name, begin, end), in order."""

    def __init__(self, timings: StageTimings, started_s: float) -> None:
        self.ended = time.time_ns()
        offset = self.ended - round(time.perf_counter() * NANO)
        self.began = offset + round(started_s * NANO)
        begins = {name: offset + round(seconds * NANO) for name, seconds in timings.started.items()}
        self.each = [
            (name, begins[name], begins[name] + round(elapsed * MILLI))
            for name, elapsed in timings.milliseconds.items()
        ]
