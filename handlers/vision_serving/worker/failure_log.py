"""A line in the log for each request that failed, wholly or for some of its images, with the id that its answer has."""

import logging
import os
from dataclasses import dataclass
from datetime import datetime, timezone

import orjson

from vision_serving.answers.responses import MAX_MESSAGE_CHARS, ModelIdentity, Response
from vision_serving.errors import RequestError
from vision_serving.log_lines import to_json_line
from vision_serving.results.outcome import Outcome
from vision_serving.worker.correlation import Correlation

logger = logging.getLogger(__name__)

EVENT = "request_failed"


@dataclass(frozen=True)
class Answered:
    """One request of a batch, with its answer."""

    correlation: Correlation
    outcome: Outcome
    response: Response


def has_failed(outcome: Outcome, response: Response) -> bool:
    """Return whether a request, or one of its images, got an error."""
    return response.status >= 400 or any(isinstance(item, RequestError) for item in outcome.items)


def log_failure(answered: Answered, model: ModelIdentity, batch_size: int) -> None:
    """Log a request that failed as a JSON object in one line, without a nested one: log4j2.xml knows it by its form."""
    logger.warning("%s", to_json_line(describe_failure(answered, model, batch_size)))


def describe_failure(answered: Answered, model: ModelIdentity, batch_size: int) -> dict[str, str | int]:
    """Return what the line of a failed request has."""
    correlation, outcome, response = answered.correlation, answered.outcome, answered.response
    errors = [item for item in outcome.items if isinstance(item, RequestError)]
    kind, message = (type(errors[0]).__name__, str(errors[0])) if errors else _read_error(response.body)
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "event": EVENT,
        "id": correlation.id,
        "server_id": correlation.server_id,
        "trace_id": correlation.parent.trace_id if correlation.parent else "",
        "model": model.name,
        "version": model.version,
        "status": response.status,
        "type": kind,
        "message": message[:MAX_MESSAGE_CHARS],
        "images": len(outcome.items),
        "failed": len(errors) or len(outcome.items),
        "batch_size": batch_size,
        "pid": os.getpid(),
    }


def _read_error(body: bytes) -> tuple[str, str]:
    """Return type and message of an error that came after the results: an answer too long, an unknown output."""
    document = orjson.loads(body)
    return str(document["type"]), str(document.get("message") or document.get("error"))
