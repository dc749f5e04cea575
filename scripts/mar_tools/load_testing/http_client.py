"""The bundled client: asyncio in one process over kept connections. One request, one record."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from mar_tools.load_testing.measurement import Record
from mar_tools.load_testing.targets import Request, Target
from vision_serving.errors import ConfigError, how_to_install

if TYPE_CHECKING:
    import aiohttp

TIMEOUT_S = 120.0


class HttpClient:
    """Sends the requests of a load test to one target, by their numbers."""

    def __init__(self, session: "aiohttp.ClientSession", target: Target, requests: Sequence[Request]) -> None:
        self._session = session
        self._failures = failures()
        self._url = target.url
        self._requests = [({**target.headers, **request.headers}, request.body) for request in requests]
        self._bodies: dict[bytes, bytes] = {}  # servers repeat themselves: a long test keeps each answer once

    async def send(self, number: int, scheduled: float | None = None) -> Record:
        """Send a request, round and round, and read its answer. scheduled: when it was due, by time.perf_counter."""
        number %= len(self._requests)
        headers, body = self._requests[number]
        sent = time.perf_counter()
        started = sent if scheduled is None else scheduled
        try:
            async with self._session.post(self._url, data=body, headers=headers) as response:
                answer = await response.read()
                finished = time.perf_counter()
        except self._failures:
            return Record(number, started, time.perf_counter(), status=0, lag_s=sent - started)
        return Record(
            number,
            started,
            finished,
            response.status,
            self._bodies.setdefault(answer, answer),
            response.headers.get("X-Batch-Size", ""),
            response.headers.get("Server-Timing", ""),
            lag_s=sent - started,
        )


def require_aiohttp() -> None:
    """Raises ConfigError."""
    try:
        import aiohttp  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(f"the bundled client needs {how_to_install(error)}") from error


@asynccontextmanager
async def open_client(target: Target, requests: Sequence[Request], connections: int) -> AsyncIterator[HttpClient]:
    """Open a client; requests beyond so many connections wait. Raises ConfigError without aiohttp."""
    async with open_session(TIMEOUT_S, limit=connections) as session:
        yield HttpClient(session, target, requests)


def open_session(timeout_s: float, **connections: Any) -> "aiohttp.ClientSession":
    """Open a session that sends and receives bytes unchanged. Raises ConfigError without aiohttp."""
    require_aiohttp()
    import aiohttp

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(**connections),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        headers={"Accept-Encoding": "identity"},  # Triton would compress, and aiohttp asks for that by default
    )


def failures() -> tuple[type[Exception], ...]:
    """Return what a session raises where no answer comes."""
    import aiohttp

    return aiohttp.ClientError, asyncio.TimeoutError, OSError
