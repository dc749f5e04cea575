"""E1 to E5: one client attacks through the front, while another sends pictures and waits hardly longer than before."""

import itertools
import math
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import psutil
import yaml

from lab.hostile.bombs import BOMBS
from lab.hostile.documents import DOCUMENTS
from lab.reliability.attackers_requests import (
    LIMIT,
    SHIPPED,
    costly_requests,
    files_that_swell,
    forms_of_many_parts,
    largest_bodies,
    wrong_keys,
)
from lab.reliability.episodes import FaultRow, describe_failures
from lab.testbed.findings import Episode
from lab.testbed.raw_http import hold_connections
from lab.testbed.sampling import percentile_ms
from lab.testbed.traffic import Ask, Exchange, Traffic, send_all
from lab.testbed.world import MB, World
from mar_tools.front.front import SETTINGS, Front
from mar_tools.serving.ports import LOOPBACK, find_free_ports
from mar_tools.serving.torchserve_api import ServerError

RATE = 10.0  # pictures/s of the other client
WARM_UP_S, CALM_S, PAUSE_S, LATER_S = 3.0, 30.0, 10.0, 30.0
LEAST_S = CALM_S  # of an attack: what is compared is of as many requests, so that one stall does not decide
HELD, HELD_S = 600, 20.0  # more connections, and longer, than the front lets an address have
LAST = 19  # the attacker's niceness
ATTACKER_TIMEOUT_S, OTHER_TIMEOUT_S = 40.0, 60.0
MOST_SLOWER, MOST_SLOWER_LATER = 3.0, 1.2
MOST_EXTRA_MB = 800.0  # the frontend's heap may have 1 GB
MOST_CPU_SHARE = 0.5  # of a core, for the frontend afterwards: one that collects garbage without end has a whole one
MOST_LOGGED_MB = 1.0
REFUSED_S = 2.0
SHIPPED_QUEUE = {"job_queue_size": SHIPPED["job_queue_size"]}


class Answered(NamedTuple):
    """What came of a request of the attacker. problem: where it is not the expected answer, as Exchange has it."""

    name: str
    status: int
    seconds: float
    problem: str


@dataclass(frozen=True)
class Attack:
    """make: its requests, each with the status that it expects. allowed: other statuses that may come.

    refused_s: within which a refusal has to come, where that is bounded. key: whose its requests have that bring none.
    held: connections without a key, which say nothing or half of a header meanwhile. slows: the other client may wait
    longer than is bounded elsewhere, since each of the requests is an honest one but for its size; how long is told.
    """

    row: str
    fault: str
    must_hold: str
    make: Callable[[], list[Ask]]
    connections: int
    allowed: tuple[int, ...] = ()
    refused_s: float | None = REFUSED_S
    key: str = "attacker"
    held: int = 0
    slows: bool = False

    def as_row(self) -> FaultRow:
        run = partial(attack_beside_another, attack=self)
        others = SAFE if self.slows else f"{QUICK}; {SAFE}"
        return FaultRow(self.row, self.fault, f"{self.must_hold}; {others}", run, SHIPPED_QUEUE, once=True)


@dataclass(frozen=True)
class BusyFront:
    """A front before the world's server, and the headers of its clients, of which `removed` is one no more."""

    front: Front
    clients: dict[str, dict[str, str]]


@contextmanager
def open_front(world: World) -> Iterator[BusyFront]:
    """Start a front as it is shipped. Raises NginxError."""
    with tempfile.TemporaryDirectory(prefix="front-") as folder:
        settings = Path(folder) / "front.yaml"
        shipped = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
        settings.write_text(yaml.safe_dump({**shipped, "listen": f"{LOOPBACK}:{find_free_ports(1)[0]}"}))
        front = Front(Path(folder) / "front", settings, world.server.config)
        try:
            front.start()
            clients = {name: {"X-Api-Key": front.clients.add(name)} for name in ("attacker", "other", "removed")}
            front.reload()
            front.clients.remove("removed")
            front.reload()
            yield BusyFront(front, clients)
        finally:
            front.stop()


@cache
def make_asks(make: Callable[[], list[Ask]]) -> list[Ask]:
    """Make them once, before they are sent: that takes seconds of the processor."""
    return make()


def prepare(make: Callable[[], list[Ask]]) -> int:
    return len(make_asks(make))


def send_attack(
    attack: Attack, url: str, key: dict[str, str], certificate: Path, least_s: float
) -> tuple[list[Answered], int]:
    """Send all of it, and again until `least_s` has passed. Return how many held connections were left open, too."""
    until, answers = time.perf_counter() + least_s, list[Answered]()
    with ThreadPoolExecutor(1) as holder:
        left_open = holder.submit(hold_connections, url, attack.held, certificate, HELD_S)
        while not answers or time.perf_counter() < until:
            exchanges = send_all(url, make_asks(attack.make), attack.connections, key, ATTACKER_TIMEOUT_S, certificate)
            answers += [Answered(entry.ask.name, entry.status, entry.latency_s, entry.problem) for entry in exchanges]
    return answers, left_open.result()


def attack_beside_another(world: World, choose: random.Random, attack: Attack) -> Episode:
    """Attack from a process of its own, whose turn comes last: an attacker's machine takes no core from the server."""
    before = ServerState.read(world)
    good = (choose.choice(world.good) for _ in itertools.count())
    with ProcessPoolExecutor(1, get_context("spawn"), os.nice, (LAST,)) as attacker, open_front(world) as busy:
        attacker.submit(prepare, attack.make).result()
        url, certificate = busy.front.url, busy.front.certificate
        options = (url, busy.clients[attack.key], certificate, LEAST_S)
        with Traffic(url, good, RATE, busy.clients["other"], 0, OTHER_TIMEOUT_S, certificate=certificate) as traffic:
            time.sleep(WARM_UP_S + CALM_S)
            begun = time.perf_counter()
            answers, left_open = attacker.submit(send_attack, attack, *options).result()
            ended = time.perf_counter()
            time.sleep(PAUSE_S)
            later = ServerState.read(world)
            time.sleep(LATER_S)
    episode = Episode(patience=world.patience, figures={"attack_s": round(ended - begun, 1)})
    judge_attacker(episode, answers, attack)
    episode.bound("held_connections_left", left_open, 0)
    judge_other(episode, traffic.exchanges, begun, ended, attack.slows)
    judge_server(episode, before, later, ServerState.read(world))
    return episode


class ServerState(NamedTuple):
    """Of a moment. frontend: its pid, 0 where there is none. cpu_s: that it has had. workers: those that are ready."""

    frontend: int = 0
    memory_mb: float = 0.0
    cpu_s: float = 0.0
    workers: frozenset[int] = frozenset()
    logged_mb: float = 0.0

    @classmethod
    def read(cls, world: World) -> "ServerState":
        try:
            frontend, workers = world.frontend(), frozenset(world.worker_pids())
            memory_mb, cpu_s = frontend.memory_full_info().uss / MB, sum(frontend.cpu_times()[:2])
        except (ServerError, psutil.NoSuchProcess):  # it has ended, or does not answer: what is there is judged
            return cls()
        return cls(frontend.pid, memory_mb, cpu_s, workers, len(world.log()) / MB)


def judge_server(episode: Episode, before: ServerState, later: ServerState, last: ServerState) -> None:
    episode.require(before.frontend == last.frontend != 0, "the frontend has ended, is another one, or answers nobody")
    episode.bound("workers_replaced", len(before.workers ^ last.workers), 0)
    episode.bound("frontend_more_mb", last.memory_mb - before.memory_mb, MOST_EXTRA_MB, " MB")
    episode.bound("frontend_cores_afterwards", (last.cpu_s - later.cpu_s) / LATER_S, MOST_CPU_SHARE)
    episode.bound("logged_mb", last.logged_mb - before.logged_mb, MOST_LOGGED_MB, " MB")


def judge_attacker(episode: Episode, answers: Sequence[Answered], attack: Attack) -> None:
    for status, count in sorted(Counter(entry.status for entry in answers).items()):
        episode.figures[f"attacker_{status}" if status else "attacker_closed"] = count
    others = [entry for entry in answers if entry.problem and entry.status not in attack.allowed]
    told = Counter(" ".join(f"{entry.name}: {entry.problem}".split()) for entry in others)
    episode.failures += [f"{count} x {line}" for line, count in told.items()]
    episode.bound("attacker_answered_otherwise", len(others), 0)
    episode.bound("attacker_hung", sum("TimeoutError" in entry.problem for entry in answers), 0)
    refused = [entry.seconds for entry in answers if entry.status != 200]
    if attack.refused_s is not None and refused:
        episode.bound_time("slowest_refusal_s", max(refused), attack.refused_s)


def judge_other(
    episode: Episode, exchanges: Sequence[Exchange], begun: float, ended: float, may_wait: bool = False
) -> None:
    """Compare what the other client waits for during the attack, and ten seconds after it, with what it did before."""
    windows = {
        "calm": [entry for entry in exchanges if begun - CALM_S <= entry.due and entry.finished < begun],
        "during": [entry for entry in exchanges if begun <= entry.finished and entry.due < ended],
        "later": [entry for entry in exchanges if ended + PAUSE_S <= entry.due],
    }
    p99_ms = {name: percentile_ms([entry.latency_s for entry in kept], 99) for name, kept in windows.items() if kept}
    episode.figures["during_requests"] = len(windows["during"])
    episode.figures.update({f"{name}_p99_ms": round(value, 1) for name, value in p99_ms.items()})
    episode.require(len(p99_ms) == len(windows), f"the other client sent nothing but {sorted(p99_ms)}")
    for name, most in (("during", MOST_SLOWER), ("later", MOST_SLOWER_LATER)):
        if "calm" in p99_ms and name in p99_ms:
            slower = p99_ms[name] / p99_ms["calm"]
            episode.bound(f"times_slower_{name}", slower, math.inf if may_wait else most)
    failed = [entry for entry in exchanges if entry.problem]
    episode.failures += describe_failures(failed, begun)
    episode.bound("other_failed", len(failed), 0)


QUICK = (
    f"p99 of the other client at most {MOST_SLOWER:g} x its calm value meanwhile, {MOST_SLOWER_LATER:g} x from ten "
    "seconds after on"
)
SAFE = "none of the other client's requests fails; no worker is replaced; nothing hangs"
ATTACKS = (
    Attack(
        "E1",
        "6 forms of 400,000 fields, one of 230,000 files, 100 of 1,000 fields",
        f"each is 413, or 429 where one client sends too many, within {REFUSED_S:g} s",
        forms_of_many_parts,
        connections=8,
        allowed=(429,),
    ),
    Attack(
        "E2",
        f"60 bodies of {LIMIT:,} bytes at once, a third of them slow",
        "each is served, or 429 or 503",
        largest_bodies,
        connections=60,
        allowed=(429, 503),
        refused_s=None,
    ),
    Attack(
        "E3",
        "60 explanations, 60 predictions with the largest `top_k`, 30 tensors of as many numbers as JSON "
        "may hold, and 10 of 6.75 million, at once",
        "each is served, or 413, 429 or 503",
        costly_requests,
        connections=160,
        allowed=(413, 429, 503),
        refused_s=None,
    ),
    Attack(
        "E4",
        f"{len(BOMBS) + len(DOCUMENTS)} files and documents that make decoders and parsers write, loop or allocate",
        f"each its own answer, or 429, a refusal within {REFUSED_S:g} s; at most {MOST_LOGGED_MB:g} MB of log",
        files_that_swell,
        connections=4,
        allowed=(429,),
        slows=True,
    ),
    Attack(
        "E5",
        f"10,000 wrong keys, a tenth of them one that was removed, beside {HELD} connections that are held open",
        f"each is 401 within {REFUSED_S:g} s; the front closes all that are held",
        wrong_keys,
        connections=16,
        key="removed",
        held=HELD,
    ),
)
ROWS = tuple(attack.as_row() for attack in ATTACKS)
