"""A server that does next to nothing, to find out how fast a client is: `python -m lab.peers.trivial_server`.

It reads requests with a Content-Length and answers each with the same JSON. Its first output is the port.
"""

import asyncio
import re

ANSWER = b'{"classes":[{"class_id":7,"label":"seven","score":0.9}]}'
HEADERS = (
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Batch-Size: 2\r\n"
    f"Server-Timing: decode;dur=1.50, inference;dur=8.00\r\nContent-Length: {len(ANSWER)}\r\n\r\n"
).encode()
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class TrivialServer(asyncio.Protocol):
    """Counts bytes until a request is complete."""

    def __init__(self) -> None:
        self._head = b""
        self._missing: int | None = None  # bytes of the body; None while the head is read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._missing is None:
            self._head += data
            head, separator, body = self._head.partition(b"\r\n\r\n")
            if not separator:
                return
            found = CONTENT_LENGTH.search(head)
            self._missing = (int(found[1]) if found else 0) - len(body)
        else:
            self._missing -= len(data)
        if self._missing <= 0:
            self._head, self._missing = b"", None
            self._transport.write(HEADERS + ANSWER)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(TrivialServer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
