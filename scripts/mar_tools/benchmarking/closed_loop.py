"""A closed loop: so many connections, each sending the next image when the answer to the last one is there."""

import itertools
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from urllib3 import HTTPConnectionPool
from urllib3.exceptions import HTTPError

REQUEST_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Target:
    """One served model. path: such as `/predictions/digits`. headers: with the token."""

    name: str
    url: str
    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Round:
    """One model in one round. Latencies in ms; `failed` counts answers other than 200 and broken connections."""

    name: str
    requests_per_s: float
    latency_p50_ms: float
    latency_p99_ms: float
    failed: int


def run_interleaved(
    targets: Sequence[Target], images: Sequence[bytes], connections: int, round_s: float, rounds: int
) -> list[Round]:
    """A B A B ...: so many rounds of each target, after one warm-up round each that is not counted."""
    for target in targets:
        run_round(target, images, connections, min(round_s, 5.0))
    return [run_round(target, images, connections, round_s) for _ in range(rounds) for target in targets]


def run_round(target: Target, images: Sequence[bytes], connections: int, duration_s: float) -> Round:
    """Raw bodies over kept connections for `duration_s`; requests under way at the end are finished and counted."""
    address = urlsplit(target.url)
    pool = HTTPConnectionPool(address.hostname or "127.0.0.1", address.port, maxsize=connections, retries=False)
    body_numbers = itertools.count()
    latencies: list[float] = []
    failures: list[int] = []
    deadline = time.perf_counter() + duration_s

    def send_until_deadline() -> None:
        while time.perf_counter() < deadline:
            body = images[next(body_numbers) % len(images)]
            started = time.perf_counter()
            try:
                status = pool.request(
                    "POST", target.path, body=body, headers=dict(target.headers), timeout=REQUEST_TIMEOUT_S
                ).status
            except HTTPError:
                status = 0
            latencies.append(time.perf_counter() - started)
            if status != 200:
                failures.append(status)

    threads = [threading.Thread(target=send_until_deadline) for _ in range(connections)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - started
    pool.close()
    cuts = statistics.quantiles(latencies, n=100) if len(latencies) > 1 else latencies * 99
    return Round(
        name=target.name,
        requests_per_s=round((len(latencies) - len(failures)) / elapsed, 2),
        latency_p50_ms=round(cuts[49] * 1000, 2),
        latency_p99_ms=round(cuts[98] * 1000, 2),
        failed=len(failures),
    )


def summarise(rounds: Sequence[Round]) -> dict[str, dict[str, float]]:
    """Per model the median over its rounds, and all failures."""
    names = list(dict.fromkeys(entry.name for entry in rounds))
    summary = {}
    for name in names:
        own = [entry for entry in rounds if entry.name == name]
        summary[name] = {
            "requests_per_s": statistics.median(entry.requests_per_s for entry in own),
            "requests_per_s_min": min(entry.requests_per_s for entry in own),
            "requests_per_s_max": max(entry.requests_per_s for entry in own),
            "latency_p50_ms": statistics.median(entry.latency_p50_ms for entry in own),
            "latency_p99_ms": statistics.median(entry.latency_p99_ms for entry in own),
            "failed": sum(entry.failed for entry in own),
        }
    return summary
