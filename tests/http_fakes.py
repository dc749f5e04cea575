"""A small real HTTP server, so that a load test meets sockets, kept connections and broken ones."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Answer(NamedTuple):
    """status: 0 breaks the connection."""

    status: int
    body: bytes = b"{}"
    headers: Mapping[str, str] = {}


class Request(NamedTuple):
    """What came over the wire."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@contextmanager
def serve_http(answer: Callable[[bytes, Mapping[str, str]], Answer]) -> Iterator[str]:
    """The URL of a model of a server of this process that answers each POST with `answer(body, headers)`."""
    with serve_requests(lambda request: answer(request.body, request.headers)) as url:
        yield f"{url}/predictions/model"


@contextmanager
def serve_requests(answer: Callable[[Request], Answer]) -> Iterator[str]:
    """The URL of a server of this process that answers each GET, PUT and POST."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet an answer

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            found = answer(Request(self.command, self.path, dict(self.headers), body))
            if found.status == 0:
                self.close_connection = True
                return
            self.send_response(found.status)
            for name, value in {**found.headers, "Content-Length": str(len(found.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(found.body)

        def do_GET(self) -> None:
            self.do_POST()

        def do_PUT(self) -> None:
            self.do_POST()

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing: the tests look at what comes back."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
