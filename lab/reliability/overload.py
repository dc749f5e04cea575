"""B7 to B9: more requests than fit, clients that leave, and bodies that are too large, cut, endless or slow."""

import itertools
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from lab.reliability.episodes import FaultRow, describe_failures
from lab.testbed import faulty_classification as faults
from lab.testbed.archives import SERVED
from lab.testbed.findings import Episode
from lab.testbed.raw_http import RawAnswer, abandon, cut_places, request_head, send_raw, send_slowly
from lab.testbed.traffic import Ask
from lab.testbed.world import WORKERS, World
from mar_tools.load_testing.processes import UsageWatch
from vision_serving.worker.server_settings import read_properties

CALM_S = 1.0
QUEUE = 8
BURST = 100
AT_ONCE_S = 2.0  # to refuse a burst, whose client shares the cores
LONGEST_BURST_S = 10.0
CLIENTS = 200
CLIENTS_AT_A_TIME = 50
GOOD_AFTERWARDS = 100
SLOW_S = 5.0
RAW_TIMEOUT_S = 15.0
CHUNK_BYTES = 65536
FAR_ABOVE = 1_000_000_000
GOOD_SHARE = 0.999
MOST_EXTRA_MB = 800.0  # of frontend and workers together: the frontend's heap may have 1 GB


def burst(world: World, _: random.Random) -> Episode:
    """Return all at once, each of which keeps a worker busy for a while."""
    before = world.worker_pids()
    started = time.perf_counter()
    exchanges = world.send([world.fatal(faults.sleep_a_while)] * BURST, connections=BURST)
    served = [entry for entry in exchanges if entry.status == 200]
    refused = [entry for entry in exchanges if entry.status == 503]
    episode = Episode(patience=world.patience, figures={"served": len(served), "refused": len(refused)})
    episode.require(len(served) >= QUEUE + WORKERS, f"{len(served)} were served; the queue and the workers hold more")
    episode.bound("otherwise", BURST - len(served) - len(refused), 0)
    if refused:
        episode.bound_time("slowest_refusal_s", max(entry.latency_s for entry in refused), AT_ONCE_S)
    episode.bound_time("slowest_s", max(entry.latency_s for entry in exchanges), LONGEST_BURST_S)
    others = (entry for entry in exchanges if entry.status not in (200, 503))
    episode.failures += describe_failures(others, started)
    require_healthy(episode, world, before)
    return episode


def disconnect(world: World, choose: random.Random) -> Episode:
    """Disconnect half of the clients when they have sent all, half while they send."""
    before = world.worker_pids()
    request = whole_request(world, world.good[0])
    port = world.server.ports()["inference_address"]
    with world.traffic(choose.randrange(1 << 32)) as traffic:
        time.sleep(CALM_S)
        fault = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS_AT_A_TIME) as clients:
            cuts = cut_places(CLIENTS, len(request), choose)
            list(clients.map(lambda cut: abandon(port, request[:cut]), cuts))
        time.sleep(CALM_S)
    failed = [exchange for exchange in traffic.exchanges if exchange.problem]
    episode = Episode(
        patience=world.patience, figures={"requests": len(traffic.exchanges)}, failures=describe_failures(failed, fault)
    )
    episode.bound("failed_others", len(failed), 0)
    require_healthy(episode, world, before)
    return episode


def require_healthy(episode: Episode, world: World, before: list[int]) -> None:
    """Require the same workers, and the next requests right."""
    asks = list(itertools.islice(itertools.cycle(world.good), GOOD_AFTERWARDS))
    started = time.perf_counter()
    failed = [exchange for exchange in world.send(asks) if exchange.problem]
    episode.failures += [f"afterwards: {line}" for line in describe_failures(failed, started)]
    episode.bound(f"failed_of_the_next_{GOOD_AFTERWARDS}", len(failed), 0)
    restarts = len(set(world.worker_pids()) ^ set(before))
    episode.bound("restarts", restarts, 0)


def whole_request(world: World, ask: Ask) -> bytes:
    return head_of(world, {"Content-Length": str(len(ask.body))}) + ask.body


def head_of(world: World, framing: dict[str, str]) -> bytes:
    headers = {**world.headers, "Content-Type": "image/jpeg", **framing}
    return request_head(f"/predictions/{SERVED}", headers)


def send_odd_bodies(world: World, choose: random.Random) -> Episode:
    """Return each kind once, then many slow senders, under traffic."""
    before = world.worker_pids()
    resident_mb = world.resident_mb()
    episode = Episode(patience=world.patience)
    with UsageWatch([world.frontend().pid]) as watch, world.traffic(choose.randrange(1 << 32)) as traffic:
        watch.begin()
        fault = time.perf_counter()
        send_each_kind(episode, world)
        port = world.server.ports()["inference_address"]
        head = head_of(world, {"Content-Length": str(len(world.good[0].body))})
        episode.figures["slow_senders_kept"] = send_slowly(port, CLIENTS, head, SLOW_S)
        watch.end()
    failed = [exchange for exchange in traffic.exchanges if exchange.problem]
    right = 1 - len(failed) / len(traffic.exchanges)
    episode.failures += describe_failures(failed, fault)
    episode.figures["requests"] = len(traffic.exchanges)
    episode.figures["right_share"] = round(right, 4)
    episode.require(right >= GOOD_SHARE, f"{right:.2%} of the good traffic was right")
    episode.bound("extra_memory_mb", (watch.usage.peak_rss_mb or 0.0) - resident_mb, MOST_EXTRA_MB, " MB")
    require_healthy(episode, world, before)
    return episode


def send_each_kind(episode: Episode, world: World) -> None:
    limit = int(read_properties(world.server.config.read_text(encoding="utf-8"))["max_request_size"])
    good = world.good[0]
    padded = replace(good, body=good.body + bytes(limit - len(good.body)))
    above = replace(good, body=padded.body + b"\0")
    port = world.server.ports()["inference_address"]
    at_limit = send_raw(port, [whole_request(world, padded)], RAW_TIMEOUT_S)
    note(episode, "at_limit", at_limit, (200,))
    episode.require(not good.check(at_limit.body), f"at the limit: {good.check(at_limit.body)}")
    note(episode, "one_byte_above", send_raw(port, [whole_request(world, above)], RAW_TIMEOUT_S), (413,))
    far = itertools.chain([head_of(world, {"Content-Length": str(FAR_ABOVE)})], zeros(FAR_ABOVE))
    endless = itertools.chain([head_of(world, {"Transfer-Encoding": "chunked"})], chunks(FAR_ABOVE))
    for name, stream in (("far_above", far), ("endless", endless)):
        answer = send_raw(port, stream, RAW_TIMEOUT_S)
        note(episode, name, answer, (413, 0))
        episode.bound(f"{name}_bytes_taken_mb", answer.sent / 1e6, 2 * limit / 1e6, " MB")
    short = head_of(world, {"Content-Length": str(len(good.body) + 1000)}) + good.body
    note(episode, "shorter_than_said", send_raw(port, [short], RAW_TIMEOUT_S, half_close=True), (0, 400))
    long = whole_request(world, good) + b"what no length told of"
    longer = send_raw(port, [long], RAW_TIMEOUT_S)
    note(episode, "longer_than_said", longer, (200,))
    no_number = head_of(world, {"Content-Length": "many"}) + good.body
    note(episode, "length_is_no_number", send_raw(port, [no_number], RAW_TIMEOUT_S), (0, 400))


def note(episode: Episode, name: str, answer: RawAnswer, allowed: tuple[int, ...]) -> None:
    """Note the status, 0 where the server closed without one: nobody may be left to wait for either."""
    episode.figures[name] = answer.status
    episode.require(answer.status in allowed, f"{name}: answered {answer.status} instead of one of {allowed}")
    episode.require(
        answer.status != 0 or answer.closed, f"{name}: neither answered nor closed in {answer.seconds:.1f} s"
    )


def zeros(count: int) -> Iterator[bytes]:
    return itertools.repeat(bytes(CHUNK_BYTES), count // CHUNK_BYTES)


def chunks(count: int) -> Iterator[bytes]:
    """Yield pieces of the chunked encoding, without a last one."""
    framed = f"{CHUNK_BYTES:x}\r\n".encode() + bytes(CHUNK_BYTES) + b"\r\n"
    return itertools.repeat(framed, count // CHUNK_BYTES)


ROWS = (
    FaultRow(
        "B7",
        f"a burst of {BURST} requests that take 200 ms each, for a queue of {QUEUE}",
        f"what fits ({QUEUE} and what the workers take) is 200, the rest 503 within {AT_ONCE_S:g} s; none hangs",
        burst,
        {"job_queue_size": str(QUEUE)},
    ),
    FaultRow(
        "B8",
        f"{CLIENTS} clients disconnect, half of them while they send",
        "no worker is replaced, no other request fails, the next 100 are right",
        disconnect,
    ),
    FaultRow(
        "B9",
        f"bodies at, above and far above the limit, endless, shorter and longer than they say; {CLIENTS} slow senders",
        f"200, 413, or closed; at most {MOST_EXTRA_MB:g} MB more memory; 99.9 % of the good traffic right",
        send_odd_bodies,
    ),
)
