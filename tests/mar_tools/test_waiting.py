"""Waiting ends with the first answer that is true, or with the last one of the time."""

import time
from collections.abc import Callable, Iterable

import pytest

from mar_tools.waiting import wait_until


def one_after_another(answers: Iterable[object]) -> Callable[[], object]:
    left = iter(answers)
    return lambda: next(left)


def test_the_first_answer_that_is_true_is_returned_and_nobody_is_asked_again() -> None:
    assert wait_until(one_after_another([None, "", "here"]), timeout_s=10, poll_s=0.001) == "here"


@pytest.mark.parametrize("timeout_s", [0.0, -1.0], ids=["no time", "a deadline that has passed"])
def test_without_time_it_is_asked_once(timeout_s: float) -> None:
    assert wait_until(one_after_another([[]]), timeout_s) == []


def test_the_last_answer_is_returned_when_the_time_is_up() -> None:
    began = time.monotonic()
    assert wait_until(lambda: None, timeout_s=0.1, poll_s=0.01) is None
    assert 0.1 <= time.monotonic() - began < 5


def test_what_the_condition_raises_ends_the_wait() -> None:
    with pytest.raises(ZeroDivisionError):
        wait_until(lambda: 1 / 0, timeout_s=10)
