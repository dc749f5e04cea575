"""A span for each prediction, where the caller's process has set up OpenTelemetry; it is never imported from here."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

TellStatus: TypeAlias = Callable[[int], object]
API = "opentelemetry.trace"  # which a process has loaded that traces


@contextmanager
def trace_request(method: str, url: str, path: str) -> Iterator[tuple[Mapping[str, str], TellStatus]]:
    """Yield the headers that let the server join the caller's trace, and what takes the status of its answer.

    An error that is raised within is the span's.
    """
    if API not in sys.modules:
        yield {}, lambda status: None
        return
    from opentelemetry import propagate, trace

    headers: dict[str, str] = {}
    server = (
        url.partition("//")[2].partition("/")[0].rpartition("@")[2]
    )  # whatever it is: the request says if it is none
    attributes = {"http.request.method": method, "url.path": path, "server.address": server}
    tracer = trace.get_tracer("vision_client")
    with tracer.start_as_current_span(f"{method} {path}", kind=trace.SpanKind.CLIENT, attributes=attributes) as span:
        propagate.inject(headers)
        yield headers, lambda status: span.set_attribute("http.response.status_code", status)
