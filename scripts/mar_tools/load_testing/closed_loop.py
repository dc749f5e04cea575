"""A closed loop: so many connections, each sending the next image when the answer to its last one is there.

It shows what a server can do at most. What counts is a window of a load that goes on before and after it, so that
neither filling nor emptying the server is measured.
"""

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence

from mar_tools.load_testing.http_client import HttpClient, open_client
from mar_tools.load_testing.measurement import Measurement, Record, Window, measure_records
from mar_tools.load_testing.processes import UsageWatch
from mar_tools.load_testing.targets import Request, Target

WARM_UP_S = 1.0


def run_closed_loop(
    target: Target, requests: Sequence[Request], connections: int, duration_s: float, warm_up_s: float = WARM_UP_S
) -> Measurement:
    """Load a target. After `warm_up_s`, answers within `duration_s` count, and all failures."""
    with UsageWatch([] if target.pid is None else [target.pid]) as watch:
        records, window = asyncio.run(_drive(target, requests, connections, warm_up_s, duration_s, watch))
    counted = [
        record
        for record in records
        if record.finished >= window.start and (record.finished <= window.end or record.status != 200)
    ]
    return measure_records(counted, requests, window, watch.usage)


async def _drive(
    target: Target,
    requests: Sequence[Request],
    connections: int,
    warm_up_s: float,
    duration_s: float,
    watch: UsageWatch,
) -> tuple[list[Record], Window]:
    """Return the records of all requests, and the window that counts; it lasts until there is a first answer in it."""
    records: list[Record] = []
    stop = asyncio.Event()
    numbers = itertools.count()
    async with open_client(target, requests, connections) as client:
        senders = [asyncio.create_task(_keep_sending(client, numbers, records, stop)) for _ in range(connections)]
        await asyncio.wait(senders, timeout=warm_up_s, return_when=asyncio.FIRST_EXCEPTION)
        watch.begin()
        start = time.perf_counter()
        known = len(records)
        await asyncio.wait(senders, timeout=duration_s, return_when=asyncio.FIRST_EXCEPTION)
        while len(records) == known and not any(sender.done() for sender in senders):
            await asyncio.sleep(0.01)
        end = time.perf_counter()
        watch.end()
        stop.set()
        await asyncio.gather(*senders)
    return records, Window(start, end)


async def _keep_sending(client: HttpClient, numbers: Iterator[int], records: list[Record], stop: asyncio.Event) -> None:
    while not stop.is_set():
        records.append(await client.send(next(numbers)))
