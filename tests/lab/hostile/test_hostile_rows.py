"""Hostile requests against a real server: each gets its own answer, and nobody else's changes. One server for all."""

import random
from collections.abc import Iterator
from functools import partial

import pytest

from lab.hostile.bombs import BOMBS, MAX_RISE_MIB
from lab.hostile.forms import OF_THE_FRONTEND
from lab.hostile.memory import measure_in_workers
from lab.hostile.requests import BOMB_KINDS, HOSTILE, PATH, refusal
from lab.hostile.rows import list_problems, observe_a1, observe_a4, observe_a5
from lab.hostile.server import Subject, build_hostile_archive, open_subject
from lab.testbed.traffic import Ask

PATIENCE_S = 5.0  # of a busy machine; alone it is a tenth of a second


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    with open_subject(build_hostile_archive(tmp_path_factory.mktemp("hostile"))) as subject:
        yield subject


def test_there_are_more_than_a_hundred_kinds() -> None:
    assert len({**HOSTILE, **BOMB_KINDS}) > 100


def test_hostile_requests_among_good_ones(subject: Subject) -> None:
    """A1 in short."""
    assert observe_a1(subject, 0, "", hostile=120, good=280).problems == ()


def test_every_kind_of_body_form_and_header(subject: Subject) -> None:
    """A4: each once."""
    assert observe_a4(subject, 0, "", variants=1).problems == ()


def test_what_the_frontend_cannot_parse_reaches_no_worker(subject: Subject) -> None:
    """It says 500 of its own; docs/evidence/reliability.md counts the answers of workers."""
    before = subject.worker_pids()
    asks = [
        Ask(name, PATH, entry.body, entry.headers, 500, refusal(500, "ErrorDataDecoderException"), good=False)
        for name, entry in OF_THE_FRONTEND.items()
    ]
    exchanges = subject.send([*asks, *subject.good], 4)
    assert list_problems(exchanges) == []
    assert not any(exchange.batch_failed for exchange in exchanges)
    assert subject.worker_pids() == before


def test_answers_that_would_end_a_worker(subject: Subject) -> None:
    """A5: each twice."""
    assert observe_a5(subject, 0, "", times=2).problems == ()


def test_bombs_cost_a_worker_little(subject: Subject) -> None:
    """A3 in the workers; tests/lab/hostile/test_bombs.py has it in process."""
    pids, choose, problems = subject.worker_pids(), random.Random(0), []
    for name, kind in BOMB_KINDS.items():
        ask = kind(subject.truth, choose)
        cost, exchange = measure_in_workers(pids, partial(subject.send_one, ask))
        if exchange.problem or cost.rise_mib > MAX_RISE_MIB or cost.seconds > PATIENCE_S:
            problems.append((name, cost, exchange.problem))
    assert problems == []
    assert subject.worker_pids() == pids
    assert len(BOMBS) == len(BOMB_KINDS)
