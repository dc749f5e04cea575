"""One trace from a client to the last stage of a worker, by a real client, front, server and receiver."""

import subprocess
import sys

import pytest

pytest.importorskip("opentelemetry.exporter.otlp", reason="needs requirements/tracing.txt", exc_type=ImportError)

from opentelemetry.proto.trace.v1.trace_pb2 import Span

from e2e.conftest import ROOT

from .conftest import ENDPOINT, Watched

CLIENT = """
import sys
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
provider = TracerProvider(resource=Resource.create({"service.name": "camera"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
trace.set_tracer_provider(provider)

from vision_client import Client
url, key, certificate, picture = sys.argv[1:]
with Client(url, key) as client:
    client.session.verify = certificate
    tell = lambda answer, **_: print(answer.headers["Server-Timing"], answer.headers["X-Request-Id"])
    client.session.hooks["response"].append(tell)
    assert client.predict("digits", picture).top.label == "7"
provider.shutdown()
"""


def milliseconds(span: Span) -> float:
    return float(span.end_time_unix_nano - span.start_time_unix_nano) / 1e6


def ask_traced(watched: Watched) -> tuple[dict[str, float], str]:
    """Return what a client's process was told: the stages of its answer, and its id."""
    picture = ROOT / "examples" / "digits_classification" / "samples" / "seven.png"
    front = watched.front.front
    command = [sys.executable, "-c", CLIENT, front.url, watched.front.key, str(front.certificate), str(picture)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT / "client")
    assert finished.returncode == 0, finished.stderr
    timing, _, number = finished.stdout.strip().rpartition(" ")
    return {name: float(value) for name, value in (part.split(";dur=") for part in timing.split(", "))}, number


def test_one_trace_leads_from_the_client_to_the_last_stage(watched: Watched) -> None:
    stages, number = ask_traced(watched)
    [line] = [line for line in watched.front.log() if line["id"] == number]
    spans = {span.name: span for span in watched.receiver.wait_for(line["trace_id"], "batch")}
    client, server = spans["POST /predictions/digits"], spans["predict digits"]
    assert not client.parent_span_id
    assert server.parent_span_id == client.span_id
    parts = {name: span for name, span in spans.items() if span.parent_span_id == server.span_id}
    assert list(parts) == ["front", "queue", *stages, "batch"]
    assert {name: milliseconds(parts[name]) for name in stages} == pytest.approx(stages, abs=0.0051)
    assert line["stages"] == ", ".join(f"{name};dur={value:.2f}" for name, value in stages.items())
    # The front and the client are around what the worker tells: one clock, whose milliseconds the front rounds.
    assert client.start_time_unix_nano - 2_000_000 <= server.start_time_unix_nano
    assert server.end_time_unix_nano <= client.end_time_unix_nano
    assert milliseconds(parts["queue"]) + sum(stages.values()) <= milliseconds(server) + 0.1 <= milliseconds(client) + 2


def test_a_request_that_its_caller_does_not_record_has_no_span(watched: Watched, seven: bytes) -> None:
    trace_id = "1af7651916cd43dd8448eb211c80319c"
    for flags in ("00", "01"):
        answer = watched.front.predict(seven, traceparent=f"00-{trace_id}-b7ad6b716920333{flags[1]}-{flags}")
        assert answer.status_code == 200
    spans = watched.receiver.wait_for(trace_id, "batch")
    assert [span.parent_span_id.hex() for span in spans if span.name == "predict digits"] == ["b7ad6b7169203331"]


def test_the_variable_is_the_standards_own() -> None:
    from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_ENDPOINT

    assert OTEL_EXPORTER_OTLP_ENDPOINT == ENDPOINT
