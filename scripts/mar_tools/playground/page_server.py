"""A server of the page for the browsers of this machine. It holds the token, so it answers its own page alone."""

import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson

from mar_tools.playground.assets import describe_routes, find_asset
from mar_tools.playground.forwarding import ASKED, Answer, Forwarder, refuse
from mar_tools.playground.reports import REPORT, Reports
from mar_tools.serving.address import read_address
from mar_tools.serving.ports import LOOPBACK, find_obstacle
from mar_tools.serving.torchserve_api import TorchServeClient
from vision_serving.errors import ConfigError
from vision_serving.worker.server_settings import DEFAULT_BODY_BYTES, read_count, read_properties, read_text

LENGTH = re.compile(r"[0-9]{1,18}")
SILENCE_S = 30.0  # of a connection, before it is closed
SECURITY = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class PageServer(ThreadingHTTPServer):
    """Serves the page at `url` until `shutdown`. Raises ConfigError for bad settings, and a port that is taken.

    config: TorchServe's config.properties. port: 0 for a free one.
    """

    daemon_threads = True

    def __init__(self, config: Path, port: int = 0) -> None:
        obstacle = find_obstacle(LOOPBACK, port)
        if obstacle is not None:
            raise ConfigError(f"port {port} {obstacle}; stop it, or give another one by --port")
        address, values = read_address(config), read_properties(read_text(config))
        client = TorchServeClient(address)
        self.forwarder = Forwarder(client)
        self.reports = Reports(client, config.resolve().parent / values.get("model_store", "model_store"))
        self.most_bytes = read_count(values, "max_request_size", DEFAULT_BODY_BYTES)
        self.routes = describe_routes()
        self.about = orjson.dumps({"needs_key": False, "address": address.inference, "reports": True})
        super().__init__((LOOPBACK, port), PageRequest)
        self.hosts = {f"{name}:{self.server_port}" for name in (LOOPBACK, "localhost")}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over a browser that has gone, as it does when the next picture is chosen."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.server_port}/"


class PageRequest(BaseHTTPRequestHandler):
    """One connection of a browser."""

    protocol_version = "HTTP/1.1"
    timeout = SILENCE_S
    disable_nagle_algorithm = True  # a body would wait 40 ms for the acknowledgement of its headers
    server_version = "playground"
    sys_version = ""
    server: PageServer

    def do_GET(self) -> None:
        self._send(self._refuse_others() or self._answer_get())

    def do_POST(self) -> None:
        refused = self._refuse_others() or self._refuse_body()
        if refused is not None:
            self.close_connection = True  # its body is not read
            self._send(refused)
            return
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if len(body) < length:  # the browser has gone
            self.close_connection = True
            return
        self._send(self.server.forwarder.predict(self.path, body, self.headers))  # type: ignore[arg-type]

    def log_message(self, *arguments: object) -> None:
        """Keep silent: the command's output is for its user."""

    def _refuse_others(self) -> Answer | None:
        """Refuse pages of other sites: by another name for this machine, or by a request across origins."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        site = self.headers.get("Sec-Fetch-Site", "none")
        if host not in self.server.hosts:
            expected = " or ".join(sorted(self.server.hosts))
            return refuse(403, "ForbiddenError", f"expected the host {expected}, got {host[:100]!r}")
        if origin not in (None, f"http://{host}") or site not in ("same-origin", "none"):
            return refuse(403, "ForbiddenError", "only the page of this server may ask it")
        return None

    def _refuse_body(self) -> Answer | None:
        if not ASKED.fullmatch(self.path):
            return refuse(404, "NotFoundError", f"expected /predictions/MODEL, got {self.path[:200]!r}")
        length = self.headers.get("Content-Length", "")
        if not LENGTH.fullmatch(length):
            return refuse(411, "LengthRequiredError", f"expected a Content-Length, got {length[:20]!r}")
        if int(length) > self.server.most_bytes:
            return refuse(413, "RequestTooLargeError", f"the body is larger than {self.server.most_bytes} bytes")
        return None

    def _answer_get(self) -> Answer:
        if self.path == "/playground/server.json":
            return Answer(200, self.server.about)
        if self.path == "/playground/openapi.json":
            return Answer(200, self.server.routes)
        if report := REPORT.fullmatch(self.path):
            return self.server.reports.answer(report[1], report[2])
        asset = find_asset(self.path)
        if asset is not None:
            return Answer(200, asset.content, {"Content-Type": asset.content_type})
        return self.server.forwarder.describe(self.path)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        own = {**SECURITY, "Content-Security-Policy": answer.policy, "Content-Length": str(len(answer.body))}
        for name, value in {**answer.headers, **own}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)
