"""D: hours of half load, with hostile requests and clients that leave, and what grows meanwhile."""

import gc
import itertools
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from lab.hostile.requests import hostile_asks
from lab.hostile.server import open_answering_model
from lab.reliability.episodes import describe_failures
from lab.reliability.overload import whole_request
from lab.testbed.findings import Episode, Finding
from lab.testbed.raw_http import abandon
from lab.testbed.sampling import SAMPLE_S, Curve, ProcessSampler, percentile_ms
from lab.testbed.traffic import Ask, Exchange
from lab.testbed.world import World

HOSTILE_SHARE = 0.05
MOST_HOSTILE = 500  # of all kinds, each several times; made before, since that takes the client's time
WARM_UP_SHARE, LONGEST_WARM_UP_S = 0.2, 600.0
WINDOW_S = 600.0  # of the first and last latencies; a third of a shorter run
MOST_GROWTH_MB_PER_H = 10.0
MOST_SLOWER = 1.2
MOST_DESCRIPTORS = 2.0
ABORT_EVERY_S = 1.0
MUST_HOLD = (
    f"no good request fails; no worker is replaced; memory of each process grows by at most {MOST_GROWTH_MB_PER_H:g} "
    f"MB/h; descriptors stay; p99 of the last {WINDOW_S / 60:g} minutes at most {MOST_SLOWER:g} x that of the first"
)


@dataclass(frozen=True)
class Soak:
    """What was seen. latencies: (due, seconds) of the good requests, from the begin on."""

    finding: Finding
    curves: Sequence[Curve]
    latencies: Sequence[tuple[float, float]]


def soak(world: World, minutes: float, seed: int, command: str, announce: Callable[[str], None]) -> Soak:
    before, seconds = world.worker_pids(), 60 * minutes
    announce("making the hostile requests")
    asks = mixed_asks(world, seed, math.ceil(HOSTILE_SHARE * world.rate * seconds))
    aborts = Aborts(world, seed)
    sampler = ProcessSampler(world.frontend().pid, min(SAMPLE_S, seconds / 60))
    with aborts, sampler, world.traffic(seed, asks=asks) as traffic:
        begin = time.perf_counter()
        try:
            while (left := begin + seconds - time.perf_counter()) > 0:
                announce(f"{(seconds - left) / 60:.1f} of {minutes:g} min, {len(traffic.exchanges)} requests")
                gc.freeze()  # the collector would go through all that was asked, and make this client late
                time.sleep(min(left, 10.0))
        finally:
            gc.unfreeze()
    episode = Episode(figures={"requests": len(traffic.exchanges), "aborted": aborts.count})
    judge_requests(episode, traffic.exchanges, begin)
    episode.bound("restarts", len(set(world.worker_pids()) ^ set(before)), 0)
    judge_growth(episode, list(sampler.curves.values()), min(WARM_UP_SHARE * seconds, LONGEST_WARM_UP_S))
    latencies = [(entry.due - begin, entry.latency_s) for entry in traffic.exchanges if entry.ask.good]
    judge_latencies(episode, latencies, seconds)
    episode.figures = {"rate_per_s": round(world.rate, 1), **episode.figures}
    fault = f"{minutes:g} minutes of half load; {HOSTILE_SHARE:.0%} hostile requests; a client leaves each second"
    finding = episode.as_finding(f"D-{minutes:g}", fault, MUST_HOLD, command)
    return Soak(finding, list(sampler.curves.values()), latencies)


def mixed_asks(world: World, seed: int, hostile: int) -> Iterator[Ask]:
    """Yield asks. hostile: how many will be asked for."""
    choose = random.Random(seed)
    with open_answering_model(world.archives.export) as truth:
        bad = list(itertools.islice(hostile_asks(truth, seed), min(hostile, MOST_HOSTILE)))
    return (choose.choice(bad if choose.random() < HOSTILE_SHARE else world.good) for _ in itertools.count())


def judge_requests(episode: Episode, exchanges: Sequence[Exchange], begin: float) -> None:
    good = [exchange for exchange in exchanges if exchange.ask.good and exchange.problem]
    bad = [exchange for exchange in exchanges if not exchange.ask.good and exchange.problem]
    episode.failures += describe_failures([*good, *bad], begin)
    episode.figures["hostile"] = sum(not exchange.ask.good for exchange in exchanges)
    episode.bound("failed", len(good), 0)
    episode.bound("hostile_answered_otherwise", len(bad), 0)


def judge_growth(episode: Episode, curves: Sequence[Curve], warm_up_s: float) -> None:
    for curve in curves:
        name = curve.name.replace(" ", "_")
        episode.figures[f"{name}_mb"] = round(curve.memory_mb[-1], 1)
        episode.bound(f"{name}_mb_per_h", curve.growth_mb_per_h(warm_up_s), MOST_GROWTH_MB_PER_H)
        episode.bound(f"{name}_more_descriptors", curve.more_descriptors(warm_up_s), MOST_DESCRIPTORS)


def judge_latencies(episode: Episode, latencies: Sequence[tuple[float, float]], seconds: float) -> None:
    window = min(WINDOW_S, seconds / 3)
    first = percentile_ms([latency for due, latency in latencies if due < window], 99)
    last = percentile_ms([latency for due, latency in latencies if due >= seconds - window], 99)
    episode.figures.update({"first_p99_ms": round(first, 1), "last_p99_ms": round(last, 1)})
    episode.bound("p99_ratio", last / first, MOST_SLOWER)


class Aborts:
    """Clients that leave, one a second, half of them while they send."""

    def __init__(self, world: World, seed: int) -> None:
        self.count = 0
        self._request = whole_request(world, world.good[0])
        self._port = world.server.ports()["inference_address"]
        self._choose = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._leave, daemon=True)

    def __enter__(self) -> "Aborts":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _leave(self) -> None:
        while not self._stop.wait(ABORT_EVERY_S):
            whole = self._choose.random() < 0.5
            cut = len(self._request) if whole else self._choose.randrange(1, len(self._request))
            abandon(self._port, self._request[:cut])
            self.count += 1
