"""An open loop: requests arrive at random times, at some mean rate, whether or not the server keeps up.

It shows what users wait. Latency counts from the moment at which a request was due, also where the client had no free
connection or was late: a server that stalls is charged for all who had to wait (no coordinated omission).
"""

import asyncio
import itertools
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from mar_tools.load_testing.http_client import open_client
from mar_tools.load_testing.measurement import Measurement, Record, Window, measure_records
from mar_tools.load_testing.processes import UsageWatch
from mar_tools.load_testing.targets import Request, Target

MAX_CONNECTIONS = 1024  # requests beyond wait in the client, and their latency grows as it would in the server's queue
WARM_UP_S = 1.0


def run_open_loop(
    target: Target, requests: Sequence[Request], rate: float, duration_s: float, seed: int, warm_up_s: float = WARM_UP_S
) -> Measurement:
    """Run Poisson arrivals of `rate` requests/s from `seed`. What is due after the warm-up counts, however late."""
    arrivals = list(draw_arrivals(rate, warm_up_s + duration_s, seed))
    with UsageWatch([] if target.pid is None else [target.pid]) as watch:
        records, window = asyncio.run(_drive(target, requests, arrivals, warm_up_s, duration_s, watch))
    counted = [record for record in records if record.started >= window.start]
    in_window = sum(record.status == 200 and window.start <= record.finished <= window.end for record in records)
    until = max([window.end, *(record.finished for record in counted)])
    return measure_records(counted, requests, Window(window.start, until), watch.usage, in_window)


def draw_arrivals(rate: float, duration_s: float, seed: int) -> Iterator[float]:
    """Draw moments in seconds from the begin: a Poisson process."""
    generator = random.Random(seed)
    moment = generator.expovariate(rate)
    while moment < duration_s:
        yield moment
        moment += generator.expovariate(rate)


async def _drive(
    target: Target,
    requests: Sequence[Request],
    arrivals: Sequence[float],
    warm_up_s: float,
    duration_s: float,
    watch: UsageWatch,
) -> tuple[list[Record], Window]:
    """Return the records of all requests, and the window in which those that count were due."""
    tasks: list[asyncio.Task[Record]] = []
    numbers = itertools.count()
    async with open_client(target, requests, MAX_CONNECTIONS) as client:
        begin = time.perf_counter()

        def send(due: float) -> None:
            tasks.append(asyncio.create_task(client.send(next(numbers), due)))

        with Pacer([begin + moment for moment in arrivals], send):
            await asyncio.sleep(begin + warm_up_s - time.perf_counter())
            watch.begin()
            await asyncio.sleep(begin + warm_up_s + duration_s - time.perf_counter())
            watch.end()
        await asyncio.sleep(0)  # the last ones that are due become tasks
        records = await asyncio.gather(*tasks)
    return records, Window(begin + warm_up_s, begin + warm_up_s + duration_s)


@dataclass
class Pacer:
    """Calls `send(due)` in the running event loop at each due time, on time to some 0.1 ms.

    A thread sleeps until then, since an event loop wakes up to a whole millisecond late. The end of the block waits
    for all that are due, unless `cancel` was called or the block failed.
    """

    due: Iterable[float]
    send: Callable[[float], None]
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Pacer":
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._pace, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.cancel()
        self._thread.join()

    def cancel(self) -> None:
        """Call for nothing that is due from now on."""
        self._stop.set()

    def _pace(self) -> None:
        for moment in self.due:
            if self._stop.wait(max(0.0, moment - time.perf_counter())):
                return
            self._loop.call_soon_threadsafe(self.send, moment)
