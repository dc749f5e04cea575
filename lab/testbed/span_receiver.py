"""A receiver of OTLP/HTTP that takes everything, or never answers: `python -m lab.testbed.span_receiver [hangs]`."""

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FOREVER_S = 3600.0


class Receiver(BaseHTTPRequestHandler):
    """Takes spans."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if "hangs" in sys.argv:
            time.sleep(FOREVER_S)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        server.daemon_threads = True
        print(server.server_port, flush=True)
        server.serve_forever()
