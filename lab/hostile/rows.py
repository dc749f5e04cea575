"""Rows A1 and A3 to A6 of the reliability page: each a function that breaks what it can and says what it saw."""

import itertools
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from lab.hostile.bombs import BOMBS, MAX_CPU_S, MAX_RISE_MIB
from lab.hostile.fuzzing import fuzz, require_atheris
from lab.hostile.memory import Cost, measure_in_workers, measure_without_server
from lab.hostile.requests import BOMB_KINDS, HARMLESS, HOSTILE, hostile_asks, odd_answer_asks
from lab.hostile.server import Subject, build_hostile_archive, open_subject
from lab.testbed.findings import Episode, Finding
from lab.testbed.traffic import Ask, Exchange

CONNECTIONS = 16
ROWS = ("A1", "A3", "A4", "A5", "A6")


def observe_hostile_rows(
    wanted: Sequence[str], seed: int, fuzz_s: int, announce: Callable[[str], None]
) -> Iterator[Finding]:
    """Yield each row as soon as it is finished; all but A6 on one server. Raises ServerError, MissingPackageError."""
    if "A6" in wanted:
        require_atheris()
    command = "python lab/run_chaos.py {row} --seed " + str(seed)
    on_server: dict[str, Callable[[Subject, int, str], Finding]] = {
        "A1": observe_a1, "A3": observe_a3, "A4": observe_a4, "A5": observe_a5,
    }  # fmt: skip
    if on_server.keys() & set(wanted):
        announce("building the archive and starting the server of section A")
        with (
            tempfile.TemporaryDirectory(prefix="reliability-") as folder,
            open_subject(build_hostile_archive(Path(folder))) as subject,
        ):
            for row in (row for row in on_server if row in wanted):
                announce(row)
                yield on_server[row](subject, seed, command.format(row=row))
    if "A6" in wanted:
        announce("A6")
        yield observe_a6(fuzz_s, seed, f"{command.format(row='A6')} --fuzz-s {fuzz_s}")


def observe_a1(subject: Subject, seed: int, command: str, hostile: int = 1200, good: int = 2800) -> Finding:
    bad = list(itertools.islice(hostile_asks(subject.truth, seed), hostile))
    exchanges, problems = observe_among(subject, bad, good, seed)
    right = [exchange for exchange in exchanges if exchange.ask.good and not exchange.problem]
    shared = sum(exchange.batch_failed > 0 for exchange in right)
    if shared * 2 < good:
        problems.append(f"{shared} of {good} good answers shared a batch with a failure; at least half have to")
    figures = {
        "good_and_right": len(right),
        "hostile_as_expected": sum(not exchange.ask.good and not exchange.problem for exchange in exchanges),
        "kinds": len({ask.name for ask in bad}),
        "status_5xx": sum(exchange.status >= 500 for exchange in exchanges),
        "good_beside_a_failure": shared,
        "mean_batch_size": round(sum(exchange.batch_size for exchange in right) / max(1, len(right)), 2),
    }
    return Episode(figures, problems=problems).as_finding(
        "A1",
        f"{hostile:,} hostile requests of {figures['kinds']} kinds among {good:,} good ones, {CONNECTIONS} connections",
        "every good one 200 and right; every bad one exactly its own answer, an error JSON under 2 KB; no 5xx; the "
        "same worker processes; at least half of the good answers shared a batch with a bad one",
        command,
    )


def observe_a3(subject: Subject, seed: int, command: str) -> Finding:
    pids, choose = subject.worker_pids(), random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="bombs-") as folder:
        alone = measure_without_server({name: bomb.make for name, bomb in BOMBS.items()}, Path(folder))
    problems: list[str] = [problem for name, cost in alone.items() for problem in judge_cost(name, cost, "in process")]
    served: dict[str, Cost] = {}
    for name, kind in BOMB_KINDS.items():
        ask = kind(subject.truth, choose)
        served[name], exchange = measure_in_workers(pids, partial(subject.send_one, ask))
        problems += [*judge_cost(name, served[name], "in a worker"), *list_problems([exchange])]
    problems += worker_changes(pids, subject.worker_pids())
    figures = {
        "files": len(BOMBS),
        "refused": sum(cost.status >= 400 for cost in served.values()),
        "slowest_s": round(max(cost.seconds for cost in served.values()), 3),
        "slowest": max(served, key=lambda name: served[name].seconds),
        "largest_rise_mib": round(max(cost.rise_mib for cost in served.values()), 1),
        "largest": max(served, key=lambda name: served[name].rise_mib),
        "in_process_cpu_s": round(max(cost.seconds for cost in alone.values()), 3),
        "in_process_rise_mib": round(max(cost.rise_mib for cost in alone.values()), 1),
    }
    return Episode(figures, problems=problems).as_finding(
        "A3",
        f"{len(BOMBS)} files that swell: of pixels, frames, texts, profiles, scans, tiles, strips, tags, pieces",
        f"each its 4xx within {MAX_CPU_S:g} s, or served at the price of what is seen; the memory of a worker rises by "
        f"at most {MAX_RISE_MIB} MiB",
        command,
    )


def observe_a4(subject: Subject, seed: int, command: str, variants: int = 10) -> Finding:
    """Observe `variants` of each kind that is random, among as many good requests as there are others."""
    truth, choose = subject.truth, random.Random(seed)
    kinds = {**HOSTILE, **HARMLESS}
    asks = [kind(truth, choose) for kind in kinds.values() for _ in range(variants)]
    exchanges, problems = observe_among(subject, asks, len(asks), seed)
    figures = {
        "requests": len(exchanges),
        "kinds": len(kinds),
        "served": sum(exchange.status == 200 for exchange in exchanges),
        "refused": sum(400 <= exchange.status < 500 for exchange in exchanges),
        "status_5xx": sum(exchange.status >= 500 for exchange in exchanges),
    }
    return Episode(figures, problems=problems).as_finding(
        "A4",
        f"damaged and odd pictures, bodies, forms and headers of {len(kinds)} kinds",
        "what decodes is answered as in process, the rest its own 4xx, never 5xx; no header changes another answer",
        command,
        variants,
    )


def observe_a5(subject: Subject, seed: int, command: str, times: int = 10) -> Finding:
    odd, before = odd_answer_asks() * times, subject.worker_pids()
    exchanges, problems = observe_among(subject, odd, 3 * len(odd), seed)
    beside = [exchange for exchange in exchanges if exchange.ask.good]
    figures = {
        "odd_answers": len(odd),
        "workers_ended": len(set(before) - set(subject.worker_pids())),
        "neighbours_right": sum(not exchange.problem for exchange in beside),
        "neighbours": len(beside),
    }
    return Episode(figures, problems=problems).as_finding(
        "A5",
        f"a model that gives {len(odd) // times} kinds of answers that no worker could send, {times} times each",
        "no worker ends, each such answer is an error of its own request, its neighbours are right",
        command,
        times,
    )


def observe_a6(seconds: int, seed: int, command: str) -> Finding:
    found = fuzz(seconds, seed)
    figures = {"executions": found.executions, "edges_covered": found.edges, "slowest_s": found.slowest_s}
    return Episode(figures, problems=list(found.failures)).as_finding(
        "A6",
        f"fuzzing of payload parsing and decoding, guided by coverage (atheris), {seconds} s",
        "only errors of our own types, nothing over 2 s",
        command,
    )


def observe_among(subject: Subject, asks: list[Ask], good: int, seed: int) -> tuple[list[Exchange], list[str]]:
    """Send them among `good` good requests; return what came of all, and what was not as it has to be."""
    before = subject.worker_pids()
    mixed = [*asks, *itertools.islice(itertools.cycle(subject.good), good)]
    random.Random(seed).shuffle(mixed)
    exchanges = subject.send(mixed, CONNECTIONS)
    return exchanges, [*list_problems(exchanges), *worker_changes(before, subject.worker_pids())]


def judge_cost(name: str, cost: Cost, where: str) -> Iterator[str]:
    if cost.status != BOMBS[name].status:
        yield f"{name} {where}: {cost.status} instead of {BOMBS[name].status}"
    if cost.seconds > MAX_CPU_S:
        yield f"{name} {where}: {cost.seconds:.2f} s"
    if cost.rise_mib > MAX_RISE_MIB:
        yield f"{name} {where}: {cost.rise_mib:.0f} MiB"


def list_problems(exchanges: Sequence[Exchange]) -> list[str]:
    """Return what was not as expected, equals together."""
    found: dict[str, int] = {}
    for exchange in exchanges:
        if exchange.problem:
            line = " ".join(f"{exchange.ask.name}: {exchange.problem}".split())
            found[line] = found.get(line, 0) + 1
    return [f"{count} x {line}" for line, count in found.items()]


def worker_changes(before: Sequence[int], after: Sequence[int]) -> list[str]:
    return [] if list(before) == list(after) else [f"workers {list(before)} are {list(after)} afterwards"]
