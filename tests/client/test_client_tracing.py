"""The client in the trace of a process that has set up OpenTelemetry, and no import of it in one that has not."""

import subprocess
import sys
from typing import Any

import pytest
from client_fakes import Recorder, client_of
from http_fakes import Answer, Request, serve_requests

from mar_tools.command_line import ROOT

pytest.importorskip("opentelemetry.sdk", reason="needs requirements/tracing.txt", exc_type=ImportError)

SETUP = """
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
"""
ASK = """
from vision_client import Client, PredictionError
with Client(sys.argv[1], retries=0) as client, trace.get_tracer("mine").start_as_current_span("mine"):
    client.predict("digits", [b"picture", b"picture"])
    try:
        client.predict("digits", b"broken")
    except PredictionError:
        pass
for span in exporter.get_finished_spans():
    name = span.attributes.get("http.response.status_code")
    parent = format(span.parent.span_id, "016x") if span.parent else None
    print(span.name, name, format(span.context.trace_id, "032x"), format(span.context.span_id, "016x"), parent)
"""


def run_python(code: str, *arguments: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, cwd=ROOT / "client"
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_each_prediction_is_a_span_within_the_callers_and_names_itself_to_the_server() -> None:
    asked: list[Any] = []

    def answer(request: Request) -> Answer:
        asked.append(request.headers["traceparent"].split("-")[:3])
        good = b'{"classes": [{"class_id": 7, "label": "7", "score": 0.9}]}'
        return Answer(400) if request.body == b"broken" else Answer(200, good, {"Content-Type": "application/json"})

    with serve_requests(answer) as url:
        *spans, mine = (line.rsplit(maxsplit=4) for line in run_python(SETUP + ASK, url).splitlines())
    assert [(name, status) for name, status, *_ in spans] == [
        ("POST /predictions/digits", "200"),
        ("POST /predictions/digits", "200"),
        ("POST /predictions/digits", "400"),
    ]
    assert {(trace, parent) for _, _, trace, _, parent in spans} == {(mine[2], mine[3])}
    assert sorted(["00", trace, own] for _, _, trace, own, _ in spans) == sorted(asked)


def test_without_a_setup_nothing_is_imported_or_sent() -> None:
    recorder = Recorder()
    with client_of(recorder) as client:
        said = run_python(
            "import sys; from vision_client import Client\n"
            "Client(sys.argv[1]).predict('digits', b'picture')\n"
            "print([name for name in sys.modules if 'opentelemetry' in name])",
            client._connection.url,
        )
    assert said.strip() == "[]"
    assert "traceparent" not in recorder.requests[0].headers
