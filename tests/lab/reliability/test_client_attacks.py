"""What is made of an attack by one client on another: without a server."""

import pytest

from lab.reliability.client_attacks import (
    ATTACKS,
    CALM_S,
    LATER_S,
    LIMIT,
    PAUSE_S,
    Answered,
    Attack,
    judge_attacker,
    judge_other,
    largest_bodies,
    make_asks,
)
from lab.testbed.findings import Episode
from lab.testbed.traffic import Ask, Exchange

BEGUN, ENDED = 1000.0, 1020.0
REFUSED = Attack("E9", "", "", list, 1, allowed=(413,))
OWN_ANSWERS = Attack("E9", "", "", list, 1)


def problems_of(answers: list[Answered], attack: Attack = REFUSED) -> list[str]:
    episode = Episode()
    judge_attacker(episode, answers, attack)
    return episode.problems


def test_an_attacker_that_is_refused_at_once_is_no_problem_and_its_statuses_are_counted() -> None:
    episode = Episode()
    judge_attacker(episode, [Answered("form", 413, 0.1, "")] * 3, REFUSED)
    assert (episode.problems, episode.figures["attacker_413"]) == ([], 3)


@pytest.mark.parametrize(
    ("answer", "attack", "problem"),
    [
        (Answered("form", 504, 1.0, ""), REFUSED, "attacker_answered_otherwise: 1, and 0 are allowed"),
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
