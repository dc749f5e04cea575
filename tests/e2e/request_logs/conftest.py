"""A server with logs in JSON and a receiver of its spans, behind a front."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from e2e.conftest import Service, serve
from e2e.front.conftest import MODELS, Running, nginx, run_front
from mar_tools.waiting import wait_until

if TYPE_CHECKING:
    from span_receiver import SpanReceiver

__all__ = ["nginx"]
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@dataclass(frozen=True)
class Watched:
    """A front, the server behind it, and what came of its spans."""

    front: Running
    server: Service
    receiver: "SpanReceiver"

    def read_log(self, name: str) -> str:
        text = (self.server.folder / "logs" / name).read_text(encoding="utf-8")
        assert all(line.isprintable() for line in text.split("\n"))
        return text

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Return a log of the server, whose lines are all JSON."""
        return [json.loads(line) for line in self.read_log(name).splitlines()]

    def failures(self, number: str) -> list[dict[str, Any]]:
        """Return the workers' lines of a request that failed, which follow its answer."""

        def find() -> list[dict[str, Any]]:
            return [line for line in self.lines("model_log.log") if line.get("id") == number]

        return wait_until(find, 30)


@pytest.fixture(scope="package")
def watched(nginx: None, archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    needs = "needs requirements/tracing.txt"
    pytest.importorskip("opentelemetry.exporter.otlp", reason=needs, exc_type=ImportError)
    from span_receiver import receive_spans

    folder = tmp_path_factory.mktemp("watched")
    (folder / "server").mkdir()
    with receive_spans() as receiver, pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENDPOINT, receiver.url)
        changes = {"models": MODELS, "vision_logs": "json"}
        with (
            serve([archives / "digits.mar"], folder / "server", **changes) as server,
            run_front(folder, folder / "server" / "config.properties") as front,
        ):
            yield Watched(front, server, receiver)
