"""OpenTelemetry's part of traces: spans with given times, sent over OTLP/HTTP by a thread of their own.

Whoever receives them, or fails to, costs a batch nothing: what cannot be sent is dropped, and told in one line.
"""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import requests
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from vision_serving.errors import ConfigError
from vision_serving.log_lines import escape
from vision_serving.worker.correlation import Parent

logger = logging.getLogger(__name__)

Span: TypeAlias = trace.Span
DELAY_VARIABLE, DELAY_MS = "OTEL_BSP_SCHEDULE_DELAY", 500.0  # a worker that is killed loses no more
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
HTTP_PROTOCOL = "http/protobuf"
LIBRARY = "opentelemetry"
FULL = "Queue full"  # the library's words for spans that it drops
MOST_CHARS = 200
MOST_ANSWER_BYTES = 65_536
TIMEOUTS, LONGEST_TIMEOUT_S = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"), 3600
# The end of urllib3's errors, as requests quotes them.
CAUSE = re.compile(r"""Caused by \w+\(["'](?:\w+\([^)]*\): )?(.*?)["']\)\)""", re.DOTALL)


class SpanSender:
    """Makes spans with given times: nanoseconds since 1970."""

    def __init__(self, exporter: SpanExporter, resource: Mapping[str, str]) -> None:
        delay_ms = None if DELAY_VARIABLE in os.environ else DELAY_MS
        provider = TracerProvider(
            sampler=ParentBased(ALWAYS_OFF), resource=Resource.create(dict(resource)), shutdown_on_exit=False
        )
        self._processor = BatchSpanProcessor(exporter, schedule_delay_millis=delay_ms)
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("vision_serving")

    def start_remote(self, name: str, begins: int, parent: Parent, attributes: Mapping[str, Any]) -> Span:
        """Start a span of this server, whose parent is the caller's."""
        flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
        state = TraceState.from_header([parent.state])
        context = SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), True, flags, state)
        within = set_span_in_context(NonRecordingSpan(context), Context())
        return self._tracer.start_span(name, within, SpanKind.SERVER, dict(attributes), start_time=begins)

    def start(
        self,
        name: str,
        begins: int,
        parent: Span,
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[Span] = (),
    ) -> Span:
        """Start a span within `parent`, linked to other spans."""
        linked = [Link(each.get_span_context()) for each in links]
        within = set_span_in_context(parent, Context())
        return self._tracer.start_span(name, within, SpanKind.INTERNAL, attributes, linked, start_time=begins)

    def flush(self) -> None:
        """Send what is there. It waits as long as the receiver does, up to OTEL_EXPORTER_OTLP_TIMEOUT."""
        self._processor.force_flush()


def start_sending(variable: str, resource: Mapping[str, str]) -> SpanSender:
    """Start the thread that sends spans to the receiver that a variable of the environment names.

    resource: attributes of all spans. Raises ConfigError for a receiver that cannot be one, and for settings that the
    library refuses. Of one that it replaces by its default, it logs a line.
    """
    check_environment(variable)
    words = FirstWords()
    library = logging.getLogger(LIBRARY)
    library.handlers, library.propagate = [words], False  # it tells of each attempt, with stacks
    named = {SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME", "vision-serving"), **resource}
    try:
        has_own_session = any(name.endswith("_CREDENTIAL_PROVIDER") for name in os.environ)
        exporter = OTLPSpanExporter(session=None if has_own_session else BoundedSession())
        sender = SpanSender(TellingExporter(exporter, words, variable), named)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"{escape(str(error))}; {_correct(variable)}") from error
    if words.said:
        said = words.said.partition("! ")[0]  # behind it the library quotes headers, which may hold a password
        logger.warning("settings of traces: %s; %s", said, _correct(variable))
    return sender


def _correct(variable: str) -> str:
    """Return what to do about settings that the library does not take: it seldom names the variable."""
    names = sorted(name for name in os.environ if name.startswith("OTEL_") and name != variable)
    return f"correct what is wrong of {', '.join(names)}, and restart the server"


def check_environment(variable: str) -> None:
    """Raises ConfigError for an address or a time that is none, and for a protocol that is not spoken here."""
    address = os.environ[variable]
    if not _is_url(address):
        raise ConfigError(f"{variable}: expected http://HOST:4318, got {address!r}; set it, and restart the server")
    for name in TIMEOUTS:
        if _is_number(os.environ.get(name, "")) and not 0 < float(os.environ[name]) < LONGEST_TIMEOUT_S:
            raise ConfigError(
                f"{name}: expected seconds, more than 0 and less than {LONGEST_TIMEOUT_S}, got {os.environ[name]!r}; "
                "correct it, and restart the server"
            )
    protocol = next((os.environ[name] for name in PROTOCOLS if os.environ.get(name)), HTTP_PROTOCOL)
    if protocol != HTTP_PROTOCOL:
        raise ConfigError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL: expected {HTTP_PROTOCOL}, got {protocol!r}; unset it, and give {variable} "
            "the receiver's port of HTTP, which is 4318 of most; then restart the server"
        )


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and text.isprintable()
    except ValueError:
        return False


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _without_secrets(url: str) -> str:
    """Return an address as a log may have it: some receivers want a password or a key in it."""
    parts = urlsplit(url)
    return escape(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")


class BoundedSession(requests.Session):
    """Asks a receiver, and reads none but a short answer: one without an end would fill the worker's memory.

    A redirect is an error: the library takes it for a success, and the spans would be nowhere.
    """

    def request(self, *arguments: Any, **named: Any) -> requests.Response:
        response = super().request(*arguments, **{**named, "stream": True})
        if 300 <= response.status_code < 400:
            response.close()
            raise requests.RequestException(f"the answer {response.status_code} leads elsewhere; name the last address")
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) <= MOST_ANSWER_BYTES:
            response.content  # noqa: B018  # read, so that the connection can be used again
        else:
            response.close()
        return response


class FirstWords(logging.Handler):
    """Keeps the first line that the library says of an attempt, in the place of its log: the next ones say less."""

    def __init__(self) -> None:
        super().__init__()
        self.said = ""
        self._is_full_told = False

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message.startswith(FULL):  # from a thread that predicts, while another one may send
            if not self._is_full_told:
                self._is_full_told = True
                logger.error("traces are lost: more come than the receiver takes, or it holds the connection")
            return
        cause = CAUSE.search(message)
        self.said = self.said or escape(cause[1] if cause else message.partition("\n")[0])[:MOST_CHARS]


class TellingExporter(SpanExporter):  # type: ignore[misc]  # where the package is not read
    """Sends spans by another exporter, and tells when that begins to fail, and when it works again."""

    def __init__(self, exporter: SpanExporter, words: FirstWords, variable: str) -> None:
        self._exporter = exporter
        self._words = words
        self._variable = variable
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._words.said = ""
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # of any kind: the thread has to go on
            self._words.said = escape(f"{type(error).__name__}: {error}")[:MOST_CHARS]
            result = SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            if not self._lost:
                logger.error(
                    "traces reach nobody: %s; predictions go on, and spans are dropped until a receiver of OTLP/HTTP "
                    "answers at %s=%s",
                    self._words.said,
                    self._variable,
                    _without_secrets(os.environ[self._variable]),
                )
            self._lost += len(spans)
        elif self._lost:
            logger.warning("traces are received again; %d spans were lost", self._lost)
            self._lost = 0
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()
