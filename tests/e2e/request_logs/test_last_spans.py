"""The spans of a worker that is about to end are sent before, where its thread would send them only in a minute."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.exporter.otlp", reason="needs requirements/tracing.txt", exc_type=ImportError)

from span_receiver import SpanReceiver, receive_spans

from e2e.conftest import Service, serve
from e2e.front.conftest import MODELS
from e2e.test_requests import OCTETS
from mar_tools.serving.graceful_stop import stop_drained
from mar_tools.serving.scaling import scale
from mar_tools.waiting import wait_until

from .conftest import ENDPOINT

pytestmark = pytest.mark.lab
REQUESTS = 24


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[SpanReceiver]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    with receive_spans() as receiver:
        monkeypatch.setenv(ENDPOINT, receiver.url)
        yield receiver


def ask_traced(service: Service, picture: bytes, first: int) -> set[str]:
    """Return the pids of the workers that answered."""
    answers = [
        service.post("digits", picture, {**OCTETS, "traceparent": f"00-{number:032x}-b7ad6b7169203331-01"})
        for number in range(first, first + REQUESTS)
    ]
    assert {answer.status_code for answer in answers} == {200}
    return {answer.headers["X-Worker-Pid"] for answer in answers}


def count_requests(receiver: SpanReceiver) -> int:
    return sum(span.name == "predict digits" for span in list(receiver.spans))


def test_a_drain_and_a_worker_that_is_scaled_away_send_their_last_spans(
    receiver: SpanReceiver, archives: Path, tmp_path: Path, seven: bytes
) -> None:
    with serve([archives / "digits.mar"], tmp_path, models=MODELS) as service:
        assert len(ask_traced(service, seven, 1)) == 2
        assert count_requests(receiver) == 0
        scale(service.server.client, service.server.config, "digits", None, 1)
        assert wait_until(lambda: count_requests(receiver) > 0, 10)
        ask_traced(service, seven, REQUESTS + 1)
        assert stop_drained(service.server, 30, lambda step: None)
    assert count_requests(receiver) == 2 * REQUESTS
