"""A receiver of OTLP/HTTP: keeps the spans that workers and clients send."""

from collections.abc import Iterator
from contextlib import contextmanager

from http_fakes import Answer, Request, serve_requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from mar_tools.waiting import wait_until


class SpanReceiver:
    """url: for OTEL_EXPORTER_OTLP_ENDPOINT. spans: what came, in order. resources: of which process, alike."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[Span] = []
        self.resources: list[dict[str, str]] = []

    def receive(self, request: Request) -> Answer:
        assert request.path == "/v1/traces", request.path
        for group in ExportTraceServiceRequest.FromString(request.body).resource_spans:
            named = {each.key: each.value.string_value for each in group.resource.attributes}
            for span in (span for scope in group.scope_spans for span in scope.spans):
                self.spans.append(span)
                self.resources.append(named)
        return Answer(200, b"", {"Content-Type": "application/x-protobuf"})

    def wait_for(self, trace_id: str, name: str, timeout_s: float = 30.0) -> list[Span]:
        """Return the spans of a trace, when one of this name is among them."""

        def find() -> list[Span]:
            found = [span for span in list(self.spans) if span.trace_id.hex() == trace_id]
            return found if any(span.name == name for span in found) else []

        found = wait_until(find, timeout_s)
        assert found, f"no span {name!r} came; there are {[span.name for span in self.spans]}"
        return found


@contextmanager
def receive_spans() -> Iterator[SpanReceiver]:
    receiver = SpanReceiver()
    with serve_requests(receiver.receive) as receiver.url:
        yield receiver
