"""An attack of one client on another: against a small server of this process, and what is made of it."""

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from http_fakes import Answer, Request, serve_requests

from lab.reliability import client_attacks
from lab.reliability.attackers_requests import LIMIT, largest_bodies
from lab.reliability.client_attacks import (
    ATTACKS,
    CALM_S,
    LATER_S,
    PAUSE_S,
    Answered,
    Attack,
    ServerState,
    attack_beside_another,
    judge_attacker,
    judge_other,
    judge_server,
    make_asks,
    send_attack,
)
from lab.testbed.findings import Episode
from lab.testbed.traffic import Ask, Exchange

BEGUN, ENDED = 1000.0, 1020.0
REFUSED = Attack("E9", "", "", list, 1, allowed=(429,))
OWN_ANSWERS = Attack("E9", "", "", list, 1)


def problems_of(answers: list[Answered], attack: Attack = REFUSED) -> list[str]:
    episode = Episode()
    judge_attacker(episode, answers, attack)
    return episode.problems


def test_an_attacker_that_is_refused_at_once_is_no_problem_and_its_statuses_are_counted() -> None:
    episode = Episode()
    judge_attacker(episode, [Answered("form", 413, 0.1, "")] * 3, REFUSED)
    judge_attacker(episode, [*[Answered("form", 413, 0.1, "")] * 3, Answered("form", 429, 0.1, "many")], REFUSED)


@pytest.mark.parametrize(
    ("answer", "attack", "problem"),
    [
        (Answered("form", 504, 1.0, "an error"), REFUSED, "attacker_answered_otherwise: 1, and 0 are allowed"),
        (Answered("form", 413, 2.5, ""), REFUSED, "slowest_refusal_s: 2.5 s, and 2 s are allowed"),
        (Answered("form", 0, 1.0, "no answer (TimeoutError)"), REFUSED, "attacker_hung: 1, and 0 are allowed"),
        (Answered("bomb", 400, 1.0, "an error"), OWN_ANSWERS, "attacker_answered_otherwise: 1, and 0 are allowed"),
    ],
    ids=["another status", "late", "hung", "not its own answer"],
)
def test_what_an_attacker_may_not_see_is_a_problem(answer: Answered, attack: Attack, problem: str) -> None:
    assert problem in problems_of([answer], attack)


def exchanges(during_s: float, later_s: float) -> list[Exchange]:
    """One each tenth of a second, which waits 10 ms but for the times of and after the attack."""
    waited = {BEGUN - CALM_S: 0.01, BEGUN: during_s, ENDED: 5.0, ENDED + PAUSE_S: later_s}
    dues = [BEGUN - CALM_S + number / 10 for number in range(int(10 * (CALM_S + ENDED - BEGUN + PAUSE_S + LATER_S)))]
    return [
        Exchange(Ask("picture", "/"), due, due + waited[max(s for s in waited if s <= due)], 200, "") for due in dues
    ]


@pytest.mark.parametrize(
    ("during_s", "later_s", "problems"),
    [
        (0.029, 0.0119, []),
        (0.031, 0.01, ["times_slower_during: 3.1, and 3 are allowed"]),
        (0.01, 0.0125, ["times_slower_later: 1.25, and 1.2 are allowed"]),
    ],
)
def test_the_other_client_may_wait_three_times_as_long_meanwhile_and_hardly_longer_later(
    during_s: float, later_s: float, problems: list[str]
) -> None:
    episode = Episode()
    judge_other(episode, exchanges(during_s, later_s), BEGUN, ENDED)
    assert episode.problems == problems
    assert episode.figures["calm_p99_ms"] == 10


def test_a_failure_of_the_other_client_is_one_too_many() -> None:
    episode = Episode()
    failed = Exchange(Ask("picture", "/"), BEGUN, BEGUN + 0.01, 504, "answered 504 instead of 200")
    judge_other(episode, [*exchanges(0.01, 0.01), failed], BEGUN, ENDED)
    assert episode.problems == ["other_failed: 1, and 0 are allowed"]


def test_an_attack_is_made_once_for_its_process() -> None:
    assert make_asks(largest_bodies) is make_asks(largest_bodies)
    assert {len(ask.body) for ask in make_asks(largest_bodies)} == {LIMIT}
    assert len({attack.row for attack in ATTACKS}) == len(ATTACKS)


@pytest.mark.parametrize(
    ("last", "problem"),
    [
        (ServerState(), "the frontend has ended, is another one, or answers nobody"),
        (ServerState(1, 200, 5, frozenset((2, 4))), "workers_replaced: 2, and 0 are allowed"),
        (ServerState(1, 1100, 5, frozenset((2, 3))), "frontend_more_mb: 900 MB, and 800 MB are allowed"),
        (ServerState(1, 200, 5 + LATER_S, frozenset((2, 3))), "frontend_cores_afterwards: 1, and 0.5 are allowed"),
        (ServerState(1, 200, 5, frozenset((2, 3)), 36), "logged_mb: 36 MB, and 1 MB are allowed"),
    ],
    ids=["gone", "another worker", "memory", "endless collection", "a decoder that writes"],
)
def test_what_a_server_may_not_be_afterwards_is_a_problem(last: ServerState, problem: str) -> None:
    before = ServerState(1, 200, 4, frozenset((2, 3)))
    episode = Episode()
    judge_server(episode, before, before._replace(cpu_s=5), last)
    assert problem in episode.problems


def test_an_attack_during_which_the_other_client_sent_nothing_shows_nothing() -> None:
    episode = Episode()
    judge_other(episode, [entry for entry in exchanges(0.01, 0.01) if not BEGUN <= entry.due < ENDED], BEGUN, ENDED)
    assert episode.problems == ["the other client sent nothing but ['calm', 'later']"]


@pytest.mark.parametrize(("least_s", "rounds"), [(0.0, 1), (4.5, 3)])
def test_an_attack_that_would_be_over_is_repeated(least_s: float, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each round takes two seconds of a clock that is not the machine's."""
    now = itertools.count(0, 1)
    monkeypatch.setattr(client_attacks, "time", SimpleNamespace(perf_counter=lambda: 2.0 * next(now)))
    monkeypatch.setattr(client_attacks, "send_all", lambda *_: [exchange_of_attack()])
    monkeypatch.setattr(client_attacks, "hold_connections", lambda *_: 7)
    answers, left_open = send_attack(REFUSED, "", {}, Path(), least_s)
    assert (len(answers), left_open) == (rounds, 7)


def exchange_of_attack() -> Exchange:
    return Exchange(Ask("large", "/"), BEGUN, BEGUN + 1, 413, "")


def small_attack() -> list[Ask]:
    return [Ask("large", "/", b"x" * 1000, status=413, good=False)] * 5


def test_the_attacker_is_another_process_with_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: Request) -> Answer:
        return Answer(413 if request.headers["X-Api-Key"] == "attacker" else 200)

    @contextmanager
    def open_nothing(_: object) -> Iterator[client_attacks.BusyFront]:
        front = SimpleNamespace(url=url, certificate=None)
        clients = {name: {"X-Api-Key": name} for name in ("attacker", "other", "removed")}
        yield client_attacks.BusyFront(front, clients)  # type: ignore[arg-type]

    monkeypatch.setattr(client_attacks, "open_front", open_nothing)
    for name in ("CALM_S", "PAUSE_S", "LATER_S", "LEAST_S"):
        monkeypatch.setattr(client_attacks, name, 1.0)
    world = SimpleNamespace(
        frontend=psutil.Process, worker_pids=lambda: [1], log=str, good=(Ask("picture", "/"),), patience=1.0
    )
    attack = Attack("E9", "", "", small_attack, connections=2, allowed=(413,), refused_s=None)
    with serve_requests(answer) as url:
        episode = attack_beside_another(world, random.Random(0), attack)  # type: ignore[arg-type]
    names = ("attacker_answered_otherwise", "held_connections_left", "other_failed")
    assert [episode.figures[name] for name in names] == [0, 0, 0]
    assert episode.figures["attacker_413"] % 5 == 0
    assert episode.figures["attack_s"] >= 1
    assert episode.figures["calm_p99_ms"] > 0
    assert episode.figures["later_p99_ms"] > 0
