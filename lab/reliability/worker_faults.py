"""B1 to B5: workers that are killed, stopped, end, hang or ask for too much memory, under continuous traffic."""

import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from lab.reliability.episodes import FaultRow, describe_failures
from lab.testbed import faulty_classification as faults
from lab.testbed.archives import RESPONSE_TIMEOUT_S
from lab.testbed.findings import Episode
from lab.testbed.traffic import Exchange, Traffic
from lab.testbed.world import BATCH_SIZE, World

CALM_S = 1.0  # of traffic before and after
PATIENCE_S = 60.0  # after which nobody waits for a worker any more
GRACE_S = 1.5  # from a server's timeout to its answer, on a machine that has other things to do
WORKER_ENDED = (500, 507)
Strike = Callable[[World, Traffic, random.Random], None]


@dataclass(frozen=True)
class Bounds:
    """What may be seen by clients that do not try again, and when the server has to be as it was.

    answered: requests with 500 or 507. unanswered: with nothing. None: as many as there are, but no wrong answer.
    visible: failures that clients who try once more still see, None where they are only counted.
    latest_s: how long a failed request may have waited.
    """

    ready_s: float
    replaced: int = 1
    answered: int | None = BATCH_SIZE
    unanswered: int | None = BATCH_SIZE
    visible: int | None = None
    latest_s: float | None = None


KILLED = Bounds(ready_s=15, visible=0)
BOTH_KILLED = Bounds(ready_s=25, replaced=2, answered=None, unanswered=None)
HUNG = Bounds(ready_s=20, unanswered=0, latest_s=RESPONSE_TIMEOUT_S + GRACE_S)


def strike_workers(world: World, choose: random.Random, strike: Strike, bounds: Bounds) -> Episode:
    """Strike workers under clients that try twice; what their first tries got is what others see."""
    before = world.worker_pids()
    with world.traffic(choose.randrange(1 << 32), tries=2) as traffic:
        time.sleep(CALM_S + choose.random())
        fault = time.perf_counter()
        strike(world, traffic, choose)
        ready_s = world.wait_until_ready(fault, PATIENCE_S, before, bounds.replaced)
        time.sleep(CALM_S)
    episode = Episode(patience=world.patience, figures={"requests": len(traffic.exchanges)})
    episode.bound_time("ready_s", ready_s, bounds.ready_s)
    judge_failures(episode, traffic.exchanges, fault, bounds)
    return episode


def judge_failures(episode: Episode, exchanges: Sequence[Exchange], fault: float, bounds: Bounds) -> None:
    failed = [exchange.first for exchange in exchanges if exchange.first.problem]
    answered = [exchange for exchange in failed if exchange.status in WORKER_ENDED]
    unanswered = [exchange for exchange in failed if exchange.status == 0]
    others = [exchange for exchange in failed if exchange.status not in (*WORKER_ENDED, 0)]
    visible = [exchange for exchange in exchanges if exchange.ask.good and exchange.problem]
    episode.failures += describe_failures(failed, fault)
    episode.failures += [f"after one retry: {line}" for line in describe_failures(visible, fault)]
    episode.figures["wrong"] = sum(exchange.is_wrong for exchange in failed)
    episode.require(not episode.figures["wrong"], f"{episode.figures['wrong']} answers were wrong")
    for name, found, most in (
        ("failed", answered, bounds.answered),
        ("unanswered", unanswered, bounds.unanswered),
        ("failed_otherwise", others, None if bounds.answered is None else 0),
        ("visible_after_a_retry", visible, bounds.visible),
    ):
        episode.bound(name, len(found), float("inf") if most is None else most)
    if bounds.latest_s is not None and failed:
        episode.bound_time("slowest_failure_s", max(entry.latency_s for entry in failed), bounds.latest_s)


def send_signal(number: signal.Signals, count: int, world: World, _: Traffic, choose: random.Random) -> None:
    for pid in choose.sample(world.worker_pids(), count):
        os.kill(pid, number)


def insert_fault(fault: Callable[[], None], world: World, traffic: Traffic, _: random.Random) -> None:
    traffic.insert(world.fatal(fault))


def end_in_the_handler(fault: Callable[[], None], world: World, choose: random.Random) -> Episode:
    return strike_workers(world, choose, partial(insert_fault, fault), KILLED)


def hang_in_the_handler(fault: Callable[[], None], world: World, choose: random.Random) -> Episode:
    """Hang, as a stopped worker; and where it hangs is in the log."""
    written = len(world.log())
    episode = strike_workers(world, choose, partial(insert_fault, fault), HUNG)
    told = fault.__name__ in world.log()[written:]
    episode.figures["stack_in_the_log"] = int(told)
    episode.require(told, f"the log does not show that {fault.__name__} was where it hung")
    return episode


def strike_by_signal(number: signal.Signals, count: int, bounds: Bounds) -> Callable[[World, random.Random], Episode]:
    return partial(strike_workers, strike=partial(send_signal, number, count), bounds=bounds)


def take_too_much_memory(world: World, choose: random.Random) -> Episode:
    """Return one request that asks for more memory than a worker may have, among others."""
    before = world.worker_pids()
    with world.traffic(choose.randrange(1 << 32)) as traffic:
        time.sleep(CALM_S)
        fault = time.perf_counter()
        traffic.insert(world.fatal(faults.allocate_too_much, status=507))
        time.sleep(2 * CALM_S)
    failed = [exchange for exchange in traffic.exchanges if exchange.problem]
    own = [exchange.status for exchange in traffic.exchanges if not exchange.ask.good]
    episode = Episode(
        patience=world.patience, figures={"requests": len(traffic.exchanges)}, failures=describe_failures(failed, fault)
    )
    episode.figures["own_status"] = own[0] if own else 0
    episode.require(own == [507], f"the request itself was answered {own} instead of 507")
    episode.bound("failed_others", sum(exchange.ask.good for exchange in failed), 0)
    episode.require(world.worker_pids() == before, "a worker was replaced")
    return episode


AS_KILLED = (
    "ready again within 15 s; at most 4 requests in flight fail (500 or 507) and at most 4 get no answer; all others "
    "right; with one retry of the client no failure is seen"
)
AS_STOPPED = "at most 4 requests fail, at responseTimeout (5 s) at the latest; replaced within 20 s"

ROWS = (
    FaultRow(
        "B1", "`kill -9` of one of two workers (simulated OOM)", AS_KILLED, strike_by_signal(signal.SIGKILL, 1, KILLED)
    ),
    FaultRow(
        "B2",
        "`kill -9` of both workers (simulated OOM)",
        "no wrong answer; ready again within 25 s",
        strike_by_signal(signal.SIGKILL, 2, BOTH_KILLED),
    ),
    FaultRow("B3", "`kill -STOP` of one worker", AS_STOPPED, strike_by_signal(signal.SIGSTOP, 1, HUNG)),
    FaultRow(
        "B4-deadlock",
        "the handler waits for a lock for ever",
        f"{AS_STOPPED}; its stack is in the log",
        partial(hang_in_the_handler, faults.wait_for_a_lock_that_is_held),
    ),
    FaultRow(
        "B4-loop",
        "the handler loops in C, and holds the interpreter's lock",
        f"{AS_STOPPED}; its stack is in the log",
        partial(hang_in_the_handler, faults.loop_in_c_forever),
    ),
    FaultRow("B4-exit", "`os._exit` in the handler", AS_KILLED, partial(end_in_the_handler, faults.end_at_once)),
    FaultRow(
        "B4-segfault",
        "a segmentation fault in the handler",
        AS_KILLED,
        partial(end_in_the_handler, faults.read_address_zero),
    ),
    FaultRow(
        "B5",
        "8 GB are allocated in the handler",
        "that request alone fails, with 507; no worker is replaced",
        take_too_much_memory,
    ),
)
